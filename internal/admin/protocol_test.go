package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadLine(t *testing.T) {
	tests := []struct {
		in, want, rest string
		err            error
	}{
		{in: "abc\nrest", want: "abc", rest: "rest"},
		{in: "\n", want: ""},
		{in: strings.Repeat("x", 9) + "\n", want: strings.Repeat("x", 9)},
		{in: strings.Repeat("x", 10) + "\n", err: errLineTooLong},
		{in: strings.Repeat("x", 1000), err: errLineTooLong},
		{in: "abc", err: io.ErrUnexpectedEOF},
		{in: "", err: io.EOF},
	}
	for _, tt := range tests {
		r := bufio.NewReader(iotest.OneByteReader(strings.NewReader(tt.in)))
		line, err := readLine(r, 10)
		if string(line) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %q, %v", tt.in, line, err)
		}
		if rest, _ := io.ReadAll(r); tt.err == nil && string(rest) != tt.rest {
			t.Errorf("%q: left %q", tt.in, rest)
		}
	}
}

func TestParseRequest(t *testing.T) {
	tests := []struct {
		in   string
		want request
		code string
		text string
	}{
		{in: `{"v":1,"command":"ping"}`, want: request{V: 1, Command: "ping"}},
		{in: "{\"v\":1,\"command\":\"x\",\"args\":{\"a\":[1]}}\r", want: request{1, "x", json.RawMessage(`{"a":[1]}`)}},
		{in: `{"v":2,"command":"ping","trace":true}`, code: CodeUnknownVersion, text: "version 2 is not spoken here, only 1"},
		{in: `{"command":"ping"}`, code: CodeUnknownVersion, text: "version 0"},
		{in: `{"v":1}`, code: CodeBadRequest, text: "names no command"},
		{in: `{"v":1,"command":"ping","argz":{}}`, code: CodeBadRequest, text: "argz"},
		{in: `{"v":1,"command":7}`, code: CodeBadRequest, text: "command"},
		{in: `{"v":1,"command":"ping"} {}`, code: CodeBadRequest},
		{in: `{"v":"1"}`, code: CodeBadRequest},
		{in: `{"v":1`, code: CodeBadRequest},
		{in: `[]`, code: CodeBadRequest},
		{in: "GET / HTTP/1.1\r", code: CodeBadRequest},
		{in: "", code: CodeBadRequest},
		{in: strings.Repeat("[", 20000), code: CodeBadRequest},
	}
	for _, tt := range tests {
		got, err := parseRequest([]byte(tt.in))
		if tt.code == "" {
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s: got %+v, %v", tt.in, got, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.text) {
			t.Errorf("%.40s: got %+v, %v; want %s %q", tt.in, got, err, tt.code, tt.text)
		}
	}
}

func TestParseReply(t *testing.T) {
	for _, bad := range []string{
		``, `{}`, `[]`, `{"v":2,"result":1}`, `{"v":1}`, `{"v":1,"result":1,"progress":1}`,
		`{"v":1,"result":1,"error":{"code":"a","message":"b"}}`, `{"v":1,"error":"text"}`,
	} {
		if r, err := parseReply([]byte(bad)); err == nil {
			t.Errorf("%s: accepted as %+v", bad, r)
		}
	}
	for _, good := range []string{
		`{"v":1,"result":null}`, `{"v":1,"progress":null}`, `{"v":1,"result":{"a":1},"took":3}`, `{"v":1,"error":{"code":"a","message":"b"}}`,
	} {
		if _, err := parseReply([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

// FuzzRequest parses any input of a client. Never more than the bound is kept,
// and an accepted request means the same when it is sent again.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"command":"ping"}` + "\n", `{"v":1,"command":"a","args":{"b":[null,1e999]}}` + "\nmore",
		`{"v":2}` + "\n", "\n", "", "\x00\n", `{"v":1,"command":"\ud800"}` + "\n", `{"v":1,"v":2,"command":"x"}` + "\n",
		strings.Repeat("[", 11000) + "\n", strings.Repeat("x", maxRequest+1), `{"V":1,"COMMAND":"x","args":null}` + "\n", "{\"v\":1,\"command\":\"\xff\"}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		line, err := readLine(r, maxRequest)
		if len(line) > maxRequest || bytes.ContainsRune(line, '\n') {
			t.Fatalf("line of %d bytes", len(line))
		}
		req, err := accepted(line, err, r.Buffered())
		if err != nil {
			return
		}
		var args any
		if len(req.Args) > 0 {
			args = req.Args
		}
		again, err := encodeRequest(req.Command, args)
		if err != nil { // escaping may have made it too long
			if len(line) < maxRequest/6 {
				t.Fatal(err)
			}
			return
		}
		got, err := parseRequest(bytes.TrimSuffix(again, []byte("\n")))
		if err != nil || got.Command != req.Command || (len(got.Args) > 0) != (len(req.Args) > 0) {
			t.Fatalf("%q became %q: %+v, %v", line, again, got, err)
		}
	})
}
