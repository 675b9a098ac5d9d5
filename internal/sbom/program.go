package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"strings"
)

// program is a file and what its linker has noted in it.
type program struct {
	name    string // postern-policyd
	system  string // linux/arm64
	sum     string // of the file
	main    string // the module that it belongs to
	modules []module
}

// module is a part of a program.
type module struct {
	path, version string
	sum           string // of its files as in go.sum, in hexadecimal; "" for Go itself
}

func readProgram(file string) (program, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return program{}, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return program{}, err
	}
	sum := sha256.Sum256(data)
	p := program{
		name:   path.Base(info.Path),
		system: setting(info, "GOOS") + "/" + setting(info, "GOARCH"),
		sum:    hex.EncodeToString(sum[:]),
		main:   info.Main.Path,
		// The name under which the databases of vulnerabilities have what comes with Go.
		modules: []module{{path: "stdlib", version: strings.TrimPrefix(info.GoVersion, "go")}},
	}
	for _, d := range info.Deps {
		m, err := readModule(d)
		if err != nil {
			return program{}, fmt.Errorf("%s: %w", file, err)
		}
		p.modules = append(p.modules, m)
	}
	return p, nil
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func readModule(d *debug.Module) (module, error) {
	if d.Replace != nil {
		d = d.Replace
	}
	hash, ok := strings.CutPrefix(d.Sum, "h1:")
	if !ok {
		return module{}, fmt.Errorf("module %s has no checksum; build without replacing it by a folder", d.Path)
	}
	sum, err := base64.StdEncoding.DecodeString(hash)
	if err != nil {
		return module{}, fmt.Errorf("module %s: checksum: %w", d.Path, err)
	}
	return module{d.Path, d.Version, hex.EncodeToString(sum)}, nil
}
