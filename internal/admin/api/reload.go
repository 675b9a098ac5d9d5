package api

// Reload asks a daemon to read its settings and files again; the answer is a
// ReloadResult. Both daemons have this command.
const Reload = "reload"

// ReloadArgs asks for a reload.
type ReloadArgs struct {
	Force bool `json:"force,omitempty"` // use the texts that are held back
}

// ReloadResult has the texts that a reload uses or holds back.
type ReloadResult struct {
	Held  []string `json:"held,omitempty"`  // that were held back
	Taken []string `json:"taken,omitempty"` // those of them that the reload uses
}
