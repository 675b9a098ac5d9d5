package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A running daemon hands its listening sockets to its successor over a unix
// stream socket. Each message is a line of JSON, and the successor sends the
// first one.
//
// Over the admin socket the predecessor first sends "hello". The messages of the
// successor, with their answers, are:
//
//	take     → sockets, with their descriptors
//	release  → released: what only one process can hold is free
//	serving  → bye: the predecessor accepts nothing any more
//
// Instead of its next message the successor may send "failed", and the
// predecessor may answer "no". When the connection ends before "serving", the
// predecessor goes on.
const (
	sayHello    = "hello"
	sayTake     = "take"
	saySockets  = "sockets"
	sayRelease  = "release"
	sayReleased = "released"
	sayServing  = "serving"
	sayBye      = "bye"
	sayFailed   = "failed"
	sayNo       = "no"
)

// Bounds of the conversation.
const (
	maxHandoverLine    = 64 << 10
	maxHandoverSockets = 64
	// handoverPatience is how long one side waits for the other's next message.
	// In that time the predecessor drains, or the successor reads its tables and
	// its store.
	handoverPatience = 3 * time.Minute
)

// HandoverVariable is the environment variable with the number of the descriptor
// over which a successor that this process started talks to it.
const HandoverVariable = "POSTERN_HANDOVER"

// message is one line.
type message struct {
	Say     string   `json:"say"`
	Error   string   `json:"error,omitempty"`
	Sockets []handed `json:"sockets,omitempty"`
}

// handed describes a socket whose descriptor is sent with the message.
type handed struct {
	Network string `json:"network"`
	Address string `json:"address"`
}

// link is one end of the conversation.
type link struct{ conn *net.UnixConn }

func (l link) send(m message, files ...*os.File) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			if fds[i], err = descriptorOf(f); err != nil {
				return err
			}
		}
		rights = unix.UnixRights(fds...)
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(handoverPatience)); err != nil {
		return err
	}
	_, _, err = l.conn.WriteMsgUnix(append(line, '\n'), rights, nil)
	return err
}

// descriptorOf returns the descriptor like f.Fd, but without its side effect: Fd
// puts the socket into blocking mode, also for other processes that accept from
// it.
func descriptorOf(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	err = raw.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// receive reads one line and the descriptors that come with it. Each side waits
// for the other's line before it sends its next one, so that receive never reads
// into the next message.
func (l link) receive() (message, []*os.File, error) {
	var m message
	if err := l.conn.SetReadDeadline(time.Now().Add(handoverPatience)); err != nil {
		return m, nil, err
	}
	var line []byte
	var files []*os.File
	fail := func(err error) (message, []*os.File, error) {
		closeFiles(files)
		return message{}, nil, err
	}
	buf, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*maxHandoverSockets))
	for {
		n, rn, _, _, err := l.conn.ReadMsgUnix(buf, rights)
		if rn > 0 {
			more, err := filesOf(rights[:rn])
			files = append(files, more...)
			if err != nil {
				return fail(err)
			}
		}
		line = append(line, buf[:n]...)
		switch {
		case strings.HasSuffix(string(line), "\n"):
			if err := json.Unmarshal(line, &m); err != nil {
				return fail(fmt.Errorf("handover: %w", err))
			}
			return m, files, nil
		case err == nil && n == 0:
			return fail(io.EOF)
		case err != nil:
			return fail(err)
		case len(line) > maxHandoverLine || len(files) > maxHandoverSockets:
			return fail(errors.New("handover: a message is too long"))
		}
	}
}

// filesOf returns the descriptors in control messages as files.
func filesOf(rights []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // another kind of message
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handover"))
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// expect receives a message and returns an error unless it says word.
func (l link) expect(word string) error {
	m, files, err := l.receive()
	closeFiles(files)
	switch {
	case err != nil:
		return fmt.Errorf("handover: waiting for %q: %w", word, err)
	case m.Say == sayFailed || m.Say == sayNo:
		return errors.New(m.Error)
	case m.Say != word:
		return fmt.Errorf("handover: %q where %q was expected", m.Say, word)
	}
	return nil
}

// Predecessor is the running daemon, as its successor sees it.
type Predecessor struct {
	link      link
	inherited []inherited
}

// inherited is a listening socket that no one has claimed yet.
type inherited struct {
	handed
	file *os.File
}

// PredecessorFromEnvironment returns the daemon that started this process to
// take its place, nil if it was started otherwise. It removes the variable.
func PredecessorFromEnvironment() (*Predecessor, error) {
	value := os.Getenv(HandoverVariable)
	if value == "" {
		return nil, nil
	}
	if err := os.Unsetenv(HandoverVariable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s: %q is no descriptor", HandoverVariable, value)
	}
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "handover")
	defer file.Close() // net.FileConn makes a duplicate
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", HandoverVariable, err)
	}
	return take(conn)
}

// AskPredecessor asks the draining daemon at an admin socket for its listening
// sockets. request is the admin request that starts the handover. Only a process
// of root or of one of the users is trusted.
func AskPredecessor(path string, request []byte, users ...int) (*Predecessor, error) {
	conn, err := net.DialTimeout(NetworkUnix, path, probeTimeout)
	if err != nil {
		return nil, err
	}
	uid, err := PeerUser(conn)
	if err == nil && uid != 0 && !slices.Contains(users, uid) {
		err = fmt.Errorf("%s belongs to a process of user %d", path, uid)
	}
	if err == nil {
		_, err = conn.Write(request)
	}
	if u, ok := conn.(*net.UnixConn); ok && err == nil {
		err = link{u}.expect(sayHello)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return take(conn)
}

// PeerUser returns the user of the process at the other end of a unix socket.
func PeerUser(conn net.Conn) (int, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, os.NewSyscallError("getsockopt", credErr)
	}
	return int(cred.Uid), nil
}

func take(conn net.Conn) (*Predecessor, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("handover: not a unix socket")
	}
	p := &Predecessor{link: link{u}}
	if err := p.take(); err != nil {
		_ = u.Close()
		return nil, err
	}
	return p, nil
}

func (p *Predecessor) take() error {
	if err := p.link.send(message{Say: sayTake}); err != nil {
		return err
	}
	m, files, err := p.link.receive()
	switch {
	case err != nil:
		return err
	case m.Say == sayNo:
		err = errors.New(m.Error)
	case m.Say != saySockets || len(files) != len(m.Sockets):
		err = fmt.Errorf("handover: %q with %d descriptors for %d sockets", m.Say, len(files), len(m.Sockets))
	}
	if err != nil {
		closeFiles(files)
		return err
	}
	for i, s := range m.Sockets {
		p.inherited = append(p.inherited, inherited{s, files[i]})
	}
	return nil
}

// claim returns the sockets of an endpoint that the predecessor handed over, or
// none.
func (p *Predecessor) claim(s Socket) ([]net.Listener, error) {
	if p == nil {
		return nil, nil
	}
	var claimed []net.Listener
	for i, in := range p.inherited {
		if in.file == nil || in.handed != (handed{s.Network, s.Address}) {
			continue
		}
		l, err := fileListener(in.file)
		if err != nil {
			for _, l := range claimed {
				_ = l.Close()
			}
			return nil, fmt.Errorf("socket of the predecessor: %w", err)
		}
		_ = in.file.Close() // fileListener made a duplicate
		p.inherited[i].file = nil
		if s.Network == NetworkUnix {
			l = adopt(l, s.Address)
		}
		claimed = append(claimed, l)
	}
	return claimed, nil
}

// inherits reports whether the predecessor has, or had, a socket.
func (p *Predecessor) inherits(s Socket) bool {
	return p != nil && slices.ContainsFunc(p.inherited, func(in inherited) bool {
		return in.handed == handed{s.Network, s.Address}
	})
}

// Inherited returns those of the listeners that the predecessor has too.
func (p *Predecessor) Inherited(listeners []Listener) []Listener {
	return slices.DeleteFunc(slices.Clone(listeners), func(l Listener) bool { return !p.inherits(l.Socket) })
}

// adopt returns a listener that removes the path of its socket when it is closed.
func adopt(l net.Listener, path string) net.Listener {
	p, err := openPlace(path)
	if err != nil {
		return l // the folder was removed, and the path with it
	}
	if p.made, err = p.look(); err != nil {
		p.made = nil
	}
	return &unixListener{Listener: l, place: p}
}

// closeUnclaimed closes the sockets that are no longer in the settings.
func (p *Predecessor) closeUnclaimed() {
	for i, in := range p.inherited {
		if in.file != nil {
			_ = in.file.Close()
			p.inherited[i].file = nil
		}
	}
}

// Release asks the predecessor to release what only one process can hold, and
// waits until that is done.
func (p *Predecessor) Release() error {
	if err := p.link.send(message{Say: sayRelease}); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	err := p.link.expect(sayReleased)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return nil // it has ended, so nothing is held any more
	}
	return err
}

// Serving asks the predecessor to accept no more connections. From then on this
// process is the daemon.
func (p *Predecessor) Serving() error {
	defer p.link.conn.Close()
	if err := p.link.send(message{Say: sayServing}); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	return p.link.expect(sayBye)
}

// Fail reports to the predecessor why this process cannot take its place.
func (p *Predecessor) Fail(reason string) {
	defer p.link.conn.Close()
	p.closeUnclaimed()
	_ = p.link.send(message{Say: sayFailed, Error: reason}) // the predecessor goes on also when this fails
}

// HandOver is the predecessor's side of the conversation. It returns nil when the
// successor serves, else the reason why it does not.
func HandOver(conn *net.UnixConn, listeners []Listener, release func() error, serving func() error) error {
	l := link{conn}
	if err := l.expect(sayTake); err != nil {
		return err
	}
	sockets := message{Say: saySockets}
	var files []*os.File
	defer func() { closeFiles(files) }()
	for _, listener := range listeners {
		f, err := listener.file()
		if err != nil {
			return errors.Join(err, l.send(message{Say: sayNo, Error: err.Error()}))
		}
		files = append(files, f)
		sockets.Sockets = append(sockets.Sockets, handed{listener.Socket.Network, listener.Socket.Address})
	}
	if err := l.send(sockets, files...); err != nil {
		return err
	}
	for _, step := range []struct {
		asked, answer string
		do            func() error
	}{{sayRelease, sayReleased, release}, {sayServing, sayBye, serving}} {
		if err := l.expect(step.asked); err != nil {
			return err
		}
		if err := step.do(); err != nil {
			return errors.Join(err, l.send(message{Say: sayNo, Error: err.Error()}))
		}
		if err := l.send(message{Say: step.answer}); err != nil && step.answer != sayBye {
			return err
		}
	}
	return nil
}

// Greet begins the conversation over the admin socket, which had another protocol
// until then. The admin server must not have read beyond the request.
func Greet(conn *net.UnixConn) error { return link{conn}.send(message{Say: sayHello}) }

// RefuseHandOver refuses a successor, with the reason.
func RefuseHandOver(conn *net.UnixConn, reason string) {
	l := link{conn}
	if l.expect(sayTake) == nil {
		_ = l.send(message{Say: sayNo, Error: reason})
	}
}
