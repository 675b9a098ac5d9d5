package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"
)

// The parts of CycloneDX 1.6 that are used.
type (
	bom struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		SerialNumber string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		Hashes     []hash     `json:"hashes,omitempty"`
		PURL       string     `json:"purl,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

const (
	application = "application"
	library     = "library"
)

// newBOM describes a release: the module, its programs, and what each has in it.
func newBOM(version string, released time.Time, programs []program) (bom, error) {
	if len(programs) == 0 {
		return bom{}, errors.New("there are no programs")
	}
	release := programs[0].main
	root := component{Type: application, Ref: purl(release, "v"+version), Name: release, Version: version, PURL: purl(release, "v"+version)}
	b := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{Timestamp: released.UTC().Format(time.RFC3339), Component: root},
	}
	all := dependency{Ref: root.Ref}
	modules := map[string]component{}
	for _, p := range programs {
		c := p.component(version)
		b.Components = append(b.Components, c)
		all.DependsOn = append(all.DependsOn, c.Ref)
		needs := dependency{Ref: c.Ref}
		for _, m := range p.modules {
			c := m.component()
			modules[c.Ref] = c
			needs.DependsOn = append(needs.DependsOn, c.Ref)
		}
		b.Dependencies = append(b.Dependencies, needs)
	}
	b.Dependencies = append([]dependency{all}, b.Dependencies...)
	b.Components = append(b.Components, slices.SortedFunc(maps.Values(modules), func(x, y component) int { return cmp.Compare(x.Ref, y.Ref) })...)
	b.SerialNumber = serialNumber(root.Ref, programs)
	return b, nil
}

// component describes a program. Its reference has the system: a release has the
// program for several.
func (p program) component(version string) component {
	return component{
		Type: application, Ref: p.system + "/" + p.name, Name: p.name, Version: version,
		Hashes:     []hash{{"SHA-256", p.sum}},
		Properties: []property{{"postern:system", p.system}},
	}
}

func (m module) component() component {
	c := component{Type: library, Ref: purl(m.path, m.version), Name: m.path, Version: m.version, PURL: purl(m.path, m.version)}
	if m.sum != "" {
		c.Hashes = []hash{{"SHA-256", m.sum}}
	}
	return c
}

// purl is the package URL of a Go module.
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + url.QueryEscape(version)
}

// serialNumber depends on what is described alone: two builds of one release have the
// same. It is a UUID of version 8, whose bits are free.
func serialNumber(release string, programs []program) string {
	h := sha256.New()
	fmt.Fprintln(h, release)
	for _, p := range programs {
		fmt.Fprintln(h, p.system, p.name, p.sum)
	}
	id := h.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
