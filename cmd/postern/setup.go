package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/greylist/migrate"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/setup"
)

func setupCommand() command {
	return command{
		path: "setup", help: "attach Postern to Postfix, or take it off again; prints what would change unless --apply is given",
		bind: bindSetup, words: map[string][]string{"only": {setup.Policyd, setup.Milterd}},
	}
}

// setupFlags are the flags of "postern setup".
type setupFlags struct {
	setup.Options
	apply, undo, yes, shadow, services bool
	binaries                           string
	client                             *admin.Client // of --admin
}

// bind binds the flags to f.
func (f *setupFlags) bind(fs *pflag.FlagSet) {
	f.Policyd = setup.Daemon{Program: policyd.Program()}
	f.Milterd = setup.Daemon{Program: milterd.Program()}
	fs.BoolVar(&f.apply, "apply", false, "make the changes; asks first on a terminal")
	fs.BoolVar(&f.undo, "undo", false, "take back what --apply has changed")
	fs.BoolVar(&f.yes, "yes", false, "do not ask")
	fs.BoolVar(&f.shadow, "shadow", false, "attach everything, but only watch: nothing is refused, delayed or signed; --shadow=false ends that")
	fs.StringVar(&f.Only, "only", "", "attach one `daemon`: policyd or milterd")
	fs.StringVar(&f.ConfigDirectory, "config-directory", "", "`folder` of main.cf and master.cf (default as postconf says)")
	fs.StringVar(&f.Policyd.Config, "policyd-config", api.PolicydConfig, "`file` of settings of postern-policyd")
	fs.StringVar(&f.Milterd.Config, "milterd-config", api.MilterdConfig, "`file` of settings of postern-milterd")
	fs.StringVar(&f.Policy, "policy", setup.DefaultPolicy, "`endpoint` of postern-policyd, as Postfix writes it")
	fs.StringVar(&f.Verify, "verify", setup.DefaultVerify, "`endpoint` of postern-milterd for mail from the internet")
	fs.StringVar(&f.Sign, "sign", setup.DefaultSign, "`endpoint` of postern-milterd for mail to be signed")
	fs.StringSliceVar(&f.Internet, "internet", nil, "`services` of master.cf that take mail from the internet, if setup does not recognise them")
	fs.StringSliceVar(&f.Users, "submission", nil, "`services` of master.cf that users send through, if setup does not recognise them")
	fs.StringVar(&f.LoginDomain, "login-domain", "", "`domain` of users who log in without one (default myorigin, if it is in mydestination)")
	fs.StringVar(&f.Signer, "signer", "", "`program` that signs: postern, or one that is attached (default: rspamd or amavis if it signs today)")
	fs.StringVar(&f.Greylister, "greylister", "", "`program` that greylists: postern, or one that is attached (default: rspamd or iRedAPD if it does today)")
	fs.StringVar(&f.User, "user", "postern", "`user` of the daemons, who gets the keys")
	fs.StringVar(&f.Root, "root", "", "`folder` below which the files of other programs and of systemd are")
	fs.StringVar(&f.Journal, "journal", setup.DefaultJournal, "`folder` that keeps what was there before")
	fs.StringVar(&f.binaries, "daemons", "", "`folder` of the daemons (default beside this program, and the usual ones)")
	fs.BoolVar(&f.services, "services", true, "have systemd start and stop the daemons, where it runs")
	f.client = &admin.Client{Daemon: api.Policyd, Path: api.PolicydSocket}
	fs.Var(adminFlag{f.client}, "admin", "`endpoint` of postern-policyd's admin socket, for the import of a greylist")
}

func bindSetup(fs *pflag.FlagSet) runner {
	f := &setupFlags{}
	f.bind(fs)
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		if f.apply && f.undo {
			return exitFailed, errors.New("--apply and --undo: give one of them")
		}
		if f.Only != "" && f.Only != setup.Policyd && f.Only != setup.Milterd {
			return exitFailed, fmt.Errorf("--only %.40q: write policyd or milterd", f.Only)
		}
		if fs.Changed("shadow") {
			f.Shadow = &f.shadow
		}
		f.Hide = dnsbl.HideKeys
		f.Import = func(ctx context.Context, i setup.Import) (string, error) {
			return importPostgrey(ctx, f.policydClient(fs), i.Folder)
		}
		f.CanImport = func() error {
			_, err := dumpTool()
			return err
		}
		code, err := f.run(ctx, io)
		if err != nil { // it may contain lines of Postfix's files
			err = errors.New(dnsbl.HideKeys(err.Error()))
		}
		return code, err
	}
}

// policydClient returns a client for postern-policyd: of --admin, or else of the socket
// that its settings name, which setup may have written just now.
func (f *setupFlags) policydClient(fs *pflag.FlagSet) *admin.Client {
	if fs.Changed("admin") {
		return f.client
	}
	return configuredClient(api.Policyd, f.Policyd.Config)
}

func (f *setupFlags) run(ctx context.Context, io streams) (int, error) {
	say := sayTo(io.out)
	applier := &setup.Applier{Options: f.Options, Say: say, Services: f.services && f.Root == "", Binaries: f.binaries}
	var err error
	if applier.ConfigDirectory, err = setup.ConfigDirectory(ctx, f.ConfigDirectory); err != nil {
		return exitFailed, err
	}
	applier.Journals = setup.JournalsOf(f.Journal, applier.ConfigDirectory)
	if f.undo {
		if agreed, err := f.agreed(ctx, io, "Take Postern off this Postfix?"); !agreed {
			return exitNo, err
		}
		if err := applier.Undo(ctx); err != nil {
			return exitFailed, err
		}
		say("Postern is off %s", applier.ConfigDirectory)
		return exitYes, nil
	}
	if f.apply {
		recovered, err := applier.Recover(ctx)
		if err != nil {
			return exitFailed, err
		}
		if recovered {
			say("an earlier run was cut short; what it had changed is taken back")
		}
	}
	plan, err := setup.MakePlan(ctx, applier.Options)
	if err != nil {
		return exitFailed, err
	}
	asked, err := f.askPerson(ctx, io, applier, plan.Asks)
	if err != nil {
		return exitFailed, err
	}
	if asked {
		if plan, err = setup.MakePlan(ctx, applier.Options); err != nil {
			return exitFailed, err
		}
	}
	plan.Print(io.out, f.Hide)
	if plan.Nothing() {
		if f.apply {
			err = applier.Listening(ctx, plan)
		}
		return exitYes, err
	}
	if !f.apply {
		fmt.Fprintln(io.out, "\nNothing is changed yet; postern setup --apply does it, and --undo takes it back.")
		return exitYes, nil
	}
	if agreed, err := f.agreed(ctx, io, "Make these changes?"); !agreed {
		return exitNo, err
	}
	if err := applier.Apply(ctx, plan); errors.Is(err, setup.ErrNotRunning) {
		say("\n%v", err)
		return exitNo, nil
	} else if err != nil {
		return exitFailed, err
	}
	say("Postern is attached to %s; %s takes it off again", applier.ConfigDirectory, f.undoCommand())
	return exitYes, nil
}

// undoCommand returns the command that takes this run back.
func (f *setupFlags) undoCommand() string {
	if f.ConfigDirectory != "" {
		return "postern setup --undo --config-directory " + f.ConfigDirectory
	}
	return "postern setup --undo"
}

// sayTo returns a function that prints lines without secrets, because parameters of
// Postfix can contain keys.
func sayTo(w io.Writer) func(format string, args ...any) {
	return func(format string, args ...any) { fmt.Fprintln(w, dnsbl.HideKeys(fmt.Sprintf(format, args...))) }
}

// askPerson asks questions on a terminal, and reports whether there were any. Without a
// terminal, flags or the defaults answer them.
func (f *setupFlags) askPerson(ctx context.Context, io streams, a *setup.Applier, questions []setup.Question) (asked bool, err error) {
	if f.yes || !isTerminal(os.Stdin) {
		return false, nil
	}
	for _, q := range questions {
		fmt.Fprintf(io.out, "%s?%s%s ", q.Text, choices(q.Choices), otherwise(q.Otherwise))
		answer, err := readAnswer(ctx, os.Stdin)
		if err != nil {
			return false, err
		}
		answer = cmp.Or(answer, q.Otherwise)
		switch q.Flag {
		case "signer":
			a.Signer = answer
		case "greylister":
			a.Greylister = answer
		case "login-domain":
			a.LoginDomain = answer
		}
	}
	return len(questions) > 0, nil
}

// errInterrupted is returned when a signal, such as that of Ctrl-C, comes while a person
// is asked.
var errInterrupted = errors.New("interrupted; nothing was changed")

// readAnswer reads a line, without the white space around it. The end of the input is an
// empty answer. It reads octet by octet, so that the next answer is not lost.
func readAnswer(ctx context.Context, in io.Reader) (string, error) {
	answered := make(chan string, 1)
	go func() { // a read from a terminal cannot be cut short: after a signal this ends with the program
		var line []byte
		for octet := make([]byte, 1); ; {
			if n, err := in.Read(octet); n == 0 && err != nil || n == 1 && octet[0] == '\n' {
				answered <- strings.TrimSpace(string(line))
				return
			} else if n == 1 && len(line) < maxAnswer {
				line = append(line, octet[0])
			}
		}
	}()
	select {
	case answer := <-answered:
		return answer, nil
	case <-ctx.Done():
		return "", errInterrupted
	}
}

// maxAnswer bounds an answer.
const maxAnswer = 1000

// otherwise is the text about the answer that an empty line gives.
func otherwise(text string) string {
	if text == "" {
		return ""
	}
	return " [" + text + "]"
}

func choices(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// agreed asks for consent on a terminal. Without one, a flag gives it.
func (f *setupFlags) agreed(ctx context.Context, io streams, question string) (bool, error) {
	if f.yes || !isTerminal(os.Stdin) {
		return true, nil
	}
	fmt.Fprintf(io.out, "\n%s [y/N] ", question)
	answer, err := readAnswer(ctx, os.Stdin)
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes", err
}

// importPostgrey imports postgrey's entries into the running daemon, with db_dump.
func importPostgrey(ctx context.Context, client *admin.Client, folder string) (string, error) {
	var said []string
	names := slices.DeleteFunc([]string{"postgrey", "postgrey_clients"}, func(name string) bool {
		_, err := os.Stat(filepath.Join(folder, name+".db"))
		return err != nil
	})
	tool, err := dumpTool()
	if err != nil {
		return "", fmt.Errorf("%w, and then: for db in %s; do db_dump -h %s -p $db.db >/root/$db.txt && postern greylist import --postgrey /root/$db.txt; done", err, strings.Join(names, " "), folder)
	}
	for _, name := range names {
		name += ".db"
		dump, err := dumpDatabase(ctx, tool, folder, name)
		if err != nil {
			return "", err
		}
		i := importer{client: client, progress: func(int) {}}
		answer, err := i.file(ctx, dump, func(file *os.File, yield func(migrate.Entry) error) (migrate.Summary, error) {
			return migrate.Postgrey(file, time.Minute, yield)
		})
		if err := errors.Join(err, os.Remove(dump)); err != nil {
			return "", err
		}
		said = append(said, fmt.Sprintf("%d entries of %s imported, %d skipped", answer.Imported, name, answer.Skipped))
	}
	return strings.Join(said, "; "), nil
}

// dumpTool returns the path of db_dump.
func dumpTool() (string, error) {
	for _, name := range []string{"db_dump", "db5.3_dump"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("db_dump is not installed; apt-get install db-util")
}

// dumpDatabase writes the text of a database of Berkeley DB into a file. Root has that done
// by the owner of the folder: Berkeley DB does what the files there say (DB_CONFIG, shared
// memory).
func dumpDatabase(ctx context.Context, tool, folder, name string) (path string, err error) {
	info, err := os.Stat(folder)
	if err != nil {
		return "", fmt.Errorf("db_dump: %w", err)
	}
	f, err := os.CreateTemp("", "postern-postgrey-")
	if err != nil {
		return "", err
	}
	var complaint strings.Builder
	cmd := exec.CommandContext(ctx, tool, "-p", "-h", folder, name)
	cmd.SysProcAttr = daemon.AsOwner(info)
	cmd.Stdout, cmd.Stderr = f, io.Writer(&complaint)
	if err := errors.Join(cmd.Run(), f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("db_dump: %w: %s", err, strings.TrimSpace(complaint.String())), os.Remove(f.Name()))
	}
	return f.Name(), nil
}
