package api

// Reload has a daemon read its settings and files again; the answer is a
// ReloadResult. Every daemon has this command.
const Reload = "reload"

// ReloadArgs asks for a reload.
type ReloadArgs struct {
	Force bool `json:"force,omitempty"` // use the texts that are held back
}

// ReloadResult is what a reload was asked for with.
type ReloadResult struct {
	Held  []string `json:"held,omitempty"`  // that were held back
	Taken []string `json:"taken,omitempty"` // of these, what the reload uses
}
