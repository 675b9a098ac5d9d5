package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Version is the protocol version that this package speaks.
const Version = 1

const (
	maxRequest = 64 << 10         // bytes of a request line
	maxReply   = 4 << 20          // bytes of one reply line
	maxValue   = maxReply - 1<<10 // bytes of a result; the rest is for what is around it
)

// The codes of an [Error] of this package. Handlers may have codes of their own.
const (
	CodeBadRequest     = "bad_request"     // not a request line
	CodeUnknownVersion = "unknown_version" // the message names the version spoken
	CodeUnknownCommand = "unknown_command" // the message names the commands known
	CodeBadArgs        = "bad_args"        // the arguments do not fit the command
	CodeTooLarge       = "too_large"       // request or result above its bound
	CodeTimeout        = "timeout"         // the request or the command took too long
	CodeFailed         = "failed"          // the command ran and failed
	CodeInternal       = "internal"        // a bug; the daemon's log has the details
)

// Error is a failure as the client sees it.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error returns only the message, which is written for people.
func (e *Error) Error() string { return e.Message }

type request struct {
	V       int             `json:"v"`
	Command string          `json:"command"`
	Args    json.RawMessage `json:"args,omitempty"`
}

// reply is one line from the daemon; exactly one of its three parts is set.
type reply struct {
	V        int             `json:"v"`
	Progress json.RawMessage `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *Error          `json:"error,omitempty"`
}

var errLineTooLong = errors.New("line too long")

// readLine reads up to a line feed, which it drops, and never keeps more than
// limit bytes. A line without its end is io.ErrUnexpectedEOF.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errLineTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// parseRequest checks the version first, because a newer request may have keys
// that only a newer daemon knows. Line is a request without arguments, as it is
// sent.
func Line(command string) []byte {
	return fmt.Appendf(nil, "{\"v\":%d,\"command\":%q}\n", Version, command)
}

func parseRequest(line []byte) (request, error) {
	var versioned struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(line, &versioned); err != nil {
		return request{}, &Error{CodeBadRequest, "the request is not a JSON object with a version: " + err.Error()}
	}
	if versioned.V != Version {
		return request{}, &Error{CodeUnknownVersion, fmt.Sprintf("version %d is not spoken here, only %d: use the postern command of the daemon's release", versioned.V, Version)}
	}
	var r request
	if err := decodeStrict(line, &r); err != nil {
		return request{}, &Error{CodeBadRequest, "the request is malformed: " + err.Error()}
	}
	if r.Command == "" {
		return request{}, &Error{CodeBadRequest, "the request names no command"}
	}
	return r, nil
}

// decodeStrict refuses keys that v does not have, so that a misspelt option is
// not ignored silently.
func decodeStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end of the object")
	}
	return nil
}
