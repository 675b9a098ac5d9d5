package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// chromium is Debian's, without a window.
const chromium = "chromium-headless-shell"

// browser is one page of a Chromium, driven by the DevTools protocol over pipes.
type browser struct {
	t       *testing.T
	to      *os.File
	session string

	mu     sync.Mutex
	last   int
	waits  map[int]chan reply // guarded by mu
	gone   chan struct{}      // closed when the browser has ended
	loaded chan struct{}      // gets a value when a page is loaded
	events []event            // guarded by mu: of the page's console and its errors
}

// reply is an answer, or an event without id.
type reply struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
	event
}

type event struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// openBrowser starts a browser with an empty page.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath(chromium)
	if err != nil {
		t.Fatalf("%v; .ci/setup installs it", err)
	}
	theirs, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
		"--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage", "--disable-gpu-watchdog", "--disable-hang-monitor", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{theirs, theirOut} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	_ = theirOut.Close()
	b := &browser{t: t, to: to, waits: map[int]chan reply{}, gone: make(chan struct{}), loaded: make(chan struct{}, 1)}
	go b.read(from)
	t.Cleanup(func() {
		_ = b.command("Browser.close", nil, nil)
		<-b.gone
		cancel()
		_ = cmd.Wait() // it was told to end
		_ = to.Close()
	})
	b.attach()
	return b
}

func (b *browser) attach() {
	b.t.Helper()
	var target struct{ TargetID string }
	b.must("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.must("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		b.must(domain+".enable", nil, nil)
	}
	b.must("Page.bringToFront", nil, nil) // or nothing is painted
}

// read takes what the browser says until it ends. Each message has a NUL behind it.
func (b *browser) read(from *os.File) {
	defer close(b.gone)
	defer from.Close()
	in := bufio.NewReader(from)
	for {
		message, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var r reply
		if json.Unmarshal(message[:len(message)-1], &r) != nil {
			continue
		}
		b.mu.Lock()
		if r.Method == "Page.loadEventFired" {
			b.loaded <- struct{}{}
		} else if r.ID == 0 {
			b.events = append(b.events, r.event)
		} else if wait := b.waits[r.ID]; wait != nil {
			delete(b.waits, r.ID)
			wait <- r
		}
		b.mu.Unlock()
	}
}

// command has the browser do something and waits for the outcome.
func (b *browser) command(method string, params, result any) error {
	wait := make(chan reply, 1)
	b.mu.Lock()
	b.last++
	message := map[string]any{"id": b.last, "method": method}
	b.waits[b.last] = wait
	b.mu.Unlock()
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		return err
	}
	select {
	case r := <-wait:
		if r.Error != nil {
			return fmt.Errorf("%s: %s", method, r.Error.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(r.Result, result)
	case <-b.gone:
		return errors.New("the browser has ended")
	}
}

func (b *browser) must(method string, params, result any) {
	b.t.Helper()
	if err := b.command(method, params, result); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what an expression of the page is, once a promise of it is kept.
func (b *browser) eval(expression string, value any) {
	b.t.Helper()
	var out struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		ExceptionDetails *struct {
			Text      string `json:"text"`
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	b.must("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &out)
	if e := out.ExceptionDetails; e != nil {
		b.t.Fatalf("%s: %s %s", expression, e.Text, e.Exception.Description)
	}
	if value == nil {
		return
	}
	if err := json.Unmarshal(out.Result.Value, value); err != nil {
		b.t.Fatalf("%s: %v: %s", expression, err, out.Result.Value)
	}
}

// until waits for a condition of the page, which looks whenever the page changes.
func (b *browser) until(condition string) {
	b.t.Helper()
	b.eval(`new Promise((done) => {
		const look = () => { if (!(`+condition+`)) return false; done(true); return true; };
		if (look()) return;
		const seen = new MutationObserver(() => { if (look()) seen.disconnect(); });
		seen.observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true });
	})`, nil)
}

// complaints are the errors of the page, such as what its policy has refused.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, e := range b.events {
		switch e.Method {
		case "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening":
			all = append(all, e.Method+" "+string(e.Params))
		}
	}
	return all
}

// screenshot writes what the page looks like to a file.
func (b *browser) screenshot(path string) {
	b.t.Helper()
	var shot struct{ Data []byte }
	b.must("Page.captureScreenshot", nil, &shot)
	if err := os.WriteFile(path, shot.Data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// show sets the size of the page in CSS pixels, and light or dark.
func (b *browser) show(width, height int, scheme string) {
	b.t.Helper()
	b.must("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.must("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// open goes to a page and waits until it is loaded.
func (b *browser) open(url string) {
	b.t.Helper()
	b.must("Page.navigate", map[string]any{"url": url}, nil)
	select {
	case <-b.loaded:
	case <-b.gone:
		b.t.Fatal("the browser has ended")
	}
}

// press presses and releases a key.
func (b *browser) press(key string) {
	b.t.Helper()
	params := map[string]any{"type": "keyDown", "key": key}
	switch {
	case key == "Enter":
		params["text"], params["windowsVirtualKeyCode"] = "\r", 13
	case key == "Escape":
		params["windowsVirtualKeyCode"] = 27
	default:
		params["text"] = key
	}
	b.must("Input.dispatchKeyEvent", params, nil)
	b.must("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key}, nil)
}

// typed writes a text into what has the focus.
func (b *browser) typed(text string) {
	b.t.Helper()
	b.must("Input.insertText", map[string]any{"text": text}, nil)
}
