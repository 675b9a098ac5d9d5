package milterd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/redisstore"
	"github.com/postern-mail/postern/internal/dmarcreport/sqlitestore"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/store/redisclient"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/verify"
)

// reportPart is the part for reports to other domains about their mail.
type reportPart struct {
	ReportStore        string
	ReportPasswordFile string
	ReportFrom         string
	ReportOrg          string
	ReportContact      string
	ReportSMTP         string

	passwordPath string
	counts       *reportCounts // nil while nothing is counted
	sender       *dmarcreport.Sender
	signer       *sign.Signer
}

const defaultReportSMTP = "inet:127.0.0.1:25"

const sqliteScheme = "sqlite:"

func (o *reportPart) bind(fs *pflag.FlagSet) {
	fs.StringVar(&o.ReportStore, "report-store", "", "`store` in which the results of DMARC are counted, for reports to the domains that ask for them: sqlite:PATH, or a URL of Redis that several hosts share; \"\" counts nothing")
	fs.StringVar(&o.ReportPasswordFile, "report-password-file", "", "`file` with the password of the Redis server of report-store; a bare name is a systemd credential")
	fs.StringVar(&o.ReportFrom, "report-from", "", "`address` that reports are sent from; there must be a DKIM key for its domain, and bounces come to LOCAL+b.TOKEN@DOMAIN")
	fs.StringVar(&o.ReportOrg, "report-org", "", "`name` of the organization that reports (default the domain of report-from)")
	fs.StringVar(&o.ReportContact, "report-contact", "", "how to reach it, a `text` such as an address or a URL (extra_contact_info)")
	fs.StringVar(&o.ReportSMTP, "report-smtp", defaultReportSMTP, "`endpoint` of the SMTP server that takes the reports")
}

func (o *reportPart) validate(s *config.Set) error {
	var errs []error
	var err error
	if o.passwordPath, err = secretPath(o.ReportPasswordFile); err != nil {
		errs = append(errs, s.Errorf("report-password-file", "%w", err))
	}
	if err := o.checkStore(); err != nil {
		errs = append(errs, s.Errorf("report-store", "%w", err))
	}
	if o.ReportFrom != "" {
		if a := mailaddr.Parse(o.ReportFrom); !a.IsValid() || a.Domain == "" || !dmarcreport.Plain(o.ReportFrom) {
			errs = append(errs, s.Errorf("report-from", "%q is no plain address; write it as dmarc-reports@example.com", o.ReportFrom))
		} else {
			o.ReportFrom = a.Local + "@" + a.Domain
		}
	}
	for _, one := range []struct{ flag, text string }{{"report-org", o.ReportOrg}, {"report-contact", o.ReportContact}} {
		if !utf8.ValidString(one.text) || strings.ContainsFunc(one.text, unicode.IsControl) {
			errs = append(errs, s.Errorf(one.flag, "it holds control characters; remove them"))
		}
	}
	if _, err := o.server(); err != nil {
		errs = append(errs, s.Errorf("report-smtp", "%w", err))
	}
	return errors.Join(errs...)
}

// server returns the address of the SMTP server for reports.
func (o *reportPart) server() (string, error) {
	server, ok := strings.CutPrefix(o.ReportSMTP, "inet:")
	if _, _, err := net.SplitHostPort(server); !ok || err != nil {
		return "", fmt.Errorf("%q is no endpoint: write %s", o.ReportSMTP, defaultReportSMTP)
	}
	return server, nil
}

// missing returns what has to be set before reports can be sent.
func (o *reportPart) missing(ctx context.Context) []string {
	if o.ReportStore == "" {
		return []string{"report-store is not set; name where it is counted what DMARC found"}
	}
	if o.ReportFrom == "" {
		return []string{"report-from is not set; name the address that reports are sent from"}
	}
	switch reason, err := o.signer.Refusal(ctx, o.ReportFrom); reason {
	case "":
		return nil
	case record.SignNoKey:
		domain := mailaddr.Parse(o.ReportFrom).Domain
		return []string{"there is no DKIM key for " + domain + ", so that reports are not signed; make one with `postern dkim genkey " + domain + "`, or set report-from to a domain that has one"}
	default:
		text := fmt.Sprintf("mail from %s is not signed (%s)", o.ReportFrom, reason)
		if err != nil {
			text += ": " + err.Error()
		}
		return []string{text}
	}
}

// redis implements redisUser.
func (o *reportPart) redis() redisSetting {
	return redisSetting{flag: "report-store", where: o.ReportStore, passwordFile: o.ReportPasswordFile}
}

// checkStore checks the settings of the store, without I/O.
func (o *reportPart) checkStore() error {
	path, isFile := strings.CutPrefix(o.ReportStore, sqliteScheme)
	switch {
	case o.ReportStore == "":
		return nil
	case isFile && (!filepath.IsAbs(path) || strings.ContainsRune(path, 0)):
		return errors.New("no absolute path: write sqlite:/var/lib/postern/reports.db")
	case isFile && o.ReportPasswordFile != "":
		return errors.New("report-password-file is for Redis: remove it, or name a Redis server here")
	case isFile:
		return nil
	case strings.Contains(o.ReportStore, "://"):
		return redisclient.CheckURL(o.ReportStore)
	}
	return fmt.Errorf("%q is no store: write sqlite:PATH or a URL of Redis", o.ReportStore)
}

func (o *reportPart) findIdle(i *idleSettings) {
	i.addFlags(!i.verifies, fixVerifies, "report-store")
	i.addFlags(o.ReportStore == "", "nothing is counted; set --report-store, or remove it", "report-password-file", "report-from", "report-org", "report-contact", "report-smtp")
}

// build starts counting the results of verification.
func (o *reportPart) build(n *needs) error {
	if o.ReportStore == "" {
		return nil
	}
	password, err := o.password(n)
	if err != nil {
		return err
	}
	if path, isFile := strings.CutPrefix(o.ReportStore, sqliteScheme); isFile && missing(filepath.Dir(path)) {
		return n.set.Errorf("report-store", "folder %s does not exist; create it for the daemon's user: install -d -o postern -m 700 %s", filepath.Dir(path), filepath.Dir(path))
	}
	if n.readOnly {
		if path, isFile := strings.CutPrefix(o.ReportStore, sqliteScheme); isFile && n.set.CheckOnly() {
			if err := sqlitefile.CheckFolder(path); err != nil {
				return n.set.Errorf("report-store", "%w", err)
			}
		}
		return nil
	}
	o.counts, err = service.Keep(n.life, reportStoreKey{o.ReportStore, sha256.Sum256([]byte(password.Reveal()))}, func() (service.Opened[*reportCounts], error) {
		return openReportCounts(o.ReportStore, password, n.Runtime)
	})
	if err != nil {
		return n.set.Errorf("report-store", "%w", err)
	}
	if o.sender, err = o.newSender(n); err != nil {
		return err
	}
	hosts.Announce(n.life, n.Runtime, hosts.Self{Setting: "report-store", Store: o.counts.store, Settings: o.common(n.set)})
	observed, method := n.verify.Observe, n.verify.DMARC.Method
	n.verify.Observe = func(f *verify.Findings) {
		observed(f)
		o.counts.observe(f, method)
	}
	return nil
}

// common returns the settings that hosts which share the store must have in common, because
// any of them may send a report: who it is from, and by which method the domains are found
// under which all count. report-smtp is not compared, it is a server near the host.
func (*reportPart) common(set *config.Set) map[string]string {
	return hosts.Texts(set, "report-from", "report-org", "report-contact", "dmarc-org")
}

// newSender returns the sender of reports. It signs them as our own mail.
func (o *reportPart) newSender(n *needs) (*dmarcreport.Sender, error) {
	o.signer = n.signer
	server, err := o.server()
	if err != nil {
		return nil, n.set.Errorf("report-smtp", "%w", err)
	}
	domain := mailaddr.Parse(o.ReportFrom).Domain
	return &dmarcreport.Sender{
		Reporter: dmarcreport.Reporter{
			From: o.ReportFrom, Receiver: domain, Org: cmp.Or(o.ReportOrg, domain), Contact: o.ReportContact,
			Generator: "Postern " + service.Version(),
		},
		Store:    o.counts.store,
		Resolver: n.asks,
		Now:      time.Now,
		Deliver:  dmarcreport.SMTP{Server: server, Hello: cmp.Or(domain, "localhost")}.Deliver,
		Sign: func(ctx context.Context, header []dmarcreport.Field, body func(io.Writer) error) ([]dmarcreport.Field, error) {
			return signReport(ctx, n.signer, header, body)
		},
	}, nil
}

// signReport returns the signatures of a report. A report without a signature would
// fail DMARC at its receiver.
func signReport(ctx context.Context, signer *sign.Signer, header []dmarcreport.Field, body func(io.Writer) error) (signatures []dmarcreport.Field, err error) {
	fields := make([]sign.Field, len(header))
	for i, f := range header {
		fields[i] = sign.Field(f)
	}
	m := signer.Message(ctx, fields)
	defer m.Abort()
	if err := body(m); err != nil {
		return nil, err
	}
	r := m.Close()
	for _, f := range r.Fields {
		signatures = append(signatures, dmarcreport.Field(f))
	}
	if len(signatures) == 0 {
		return nil, errors.Join(fmt.Errorf("the report cannot be signed (%s); make a key for the domain of report-from", r.Reason), r.Err)
	}
	return signatures, nil
}

// password reads the file with the password. The file is watched for changes.
func (o *reportPart) password(n *needs) (config.Secret, error) {
	if o.ReportPasswordFile == "" || hidden(n.set, o.ReportPasswordFile) {
		return config.Secret{}, nil
	}
	n.life.Watch(o.passwordPath)
	secret, err := config.SecretFile(o.ReportPasswordFile, os.Getenv("CREDENTIALS_DIRECTORY"))
	if err != nil {
		return secret, n.set.Errorf("report-password-file", "%w", err)
	}
	return secret, nil
}

type reportStoreKey struct {
	where    string
	password [sha256.Size]byte
}

// reportCounts is the store and its collector. It is kept over reloads.
type reportCounts struct {
	*dmarcreport.Collector
	log   *zap.Logger
	mails *prometheus.CounterVec // by state
	store interface {
		dmarcreport.Store
		Close() error
	}
}

func openReportCounts(where string, password config.Secret, r service.Runtime) (opened service.Opened[*reportCounts], err error) {
	c := &reportCounts{log: r.Log, mails: newReportMails()}
	if path, isFile := strings.CutPrefix(where, sqliteScheme); isFile {
		c.store, err = sqlitestore.Open(sqlitestore.Options{Path: path, Report: reportFile(r), Succeeds: r.Succeeds})
	} else {
		c.store, err = redisstore.Open(redisstore.Options{URL: where, Password: password.Reveal()})
	}
	if err != nil {
		return opened, err
	}
	c.Collector = dmarcreport.NewCollector(c.store, time.Now, func(err error) {
		switch {
		case errors.Is(err, dmarcreport.ErrNotYet): // reportFile has logged that
			return
		case err != nil:
			r.Log.Error("the store of DMARC reports does not answer: what is new waits in memory, as far as there is room; no mail waits for it", zap.Error(err))
			return
		}
		r.Log.Info("the store of DMARC reports works again")
	})
	return service.Opened[*reportCounts]{Value: c, Work: c.work, Close: c.store.Close}, nil
}

// work writes what is counted until ctx ends.
func (c *reportCounts) work(ctx context.Context) {
	if err := c.Run(ctx); err != nil {
		c.log.Error("the store of DMARC reports did not take what was counted last: reports do not hold it; see why the store does not answer", zap.Error(err))
	}
}

// up reports whether the store takes what is counted, and can keep it.
func (c *reportCounts) up() bool {
	f, ok := c.store.(interface{ Failing() bool })
	return c.Up() && (!ok || !f.Failing())
}

// observe counts one mail.
func (c *reportCounts) observe(f *verify.Findings, method dmarc.Method) {
	if domain, policy, row, ok := reported(f, method); ok {
		c.Record(domain, policy, row)
	}
}

// reportFile returns a function that logs events of the store's file.
func reportFile(r service.Runtime) func(sqlitefile.Event) {
	log := r.Log
	return func(e sqlitefile.Event) {
		path := zap.String("path", e.Path)
		switch e.Kind {
		case sqlitefile.SetAside:
			log.Error("the file of DMARC reports is not usable: it was renamed, and counting begins in a new one", path, zap.String("renamed_to", e.Aside), zap.Error(e.Err))
		case sqlitefile.Gone:
			log.Error("the file of DMARC reports was removed: counting begins in a new one", path)
		case sqlitefile.Replaced:
			log.Warn("the file of DMARC reports was written or replaced by another program: counting goes on in what is there", path, zap.Error(e.Err))
		case sqlitefile.WriteFailing:
			log.Error("the file of DMARC reports cannot be written: what is new waits in memory, as far as there is room", path, zap.Error(e.Err))
		case sqlitefile.WritingAgain:
			log.Info("the file of DMARC reports is written again", path)
		case sqlitefile.Waiting:
			log.Info("the process that this one replaces has the file of DMARC reports until its sessions end: what is new waits in memory, as far as there is room", path)
		case sqlitefile.Reading:
			r.ReadRows("DMARC report", e.Rows)
		}
	}
}

// reportCollector shows what is counted for reports:
//
//	postern_dmarc_report_messages_total{result}   counted, dropped, late
//	postern_dmarc_report_mails_total{state}       tries to send a report, and bounces
//	postern_dmarc_report_store_up                 absent without a store
type reportCollector struct {
	current      *current
	messages, up *prometheus.Desc
}

func reportMetrics(c *current) []prometheus.Collector {
	return []prometheus.Collector{reportCollector{
		c,
		prometheus.NewDesc("postern_dmarc_report_messages_total", "Messages counted for DMARC reports, those that are lost, and those counted that came after the report of their day was begun.", []string{"result"}, nil),
		prometheus.NewDesc("postern_dmarc_report_store_up", "1 while the store of DMARC reports takes what is counted.", nil, nil),
	}}
}

func newReportMails() *prometheus.CounterVec {
	mails := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_dmarc_report_mails_total",
		Help: "Tries to send a DMARC report to an address, and reports that came back.",
	}, []string{"state"})
	for _, state := range []string{dmarcreport.Waiting, dmarcreport.Sent, dmarcreport.Failed, dmarcreport.Dead, dmarcreport.TooLarge, dmarcreport.Bounced} {
		mails.WithLabelValues(state)
	}
	return mails
}

// Describe implements prometheus.Collector.
func (c reportCollector) Describe(out chan<- *prometheus.Desc) {
	newReportMails().Describe(out)
	out <- c.messages
	out <- c.up
}

// Collect implements prometheus.Collector.
func (c reportCollector) Collect(out chan<- prometheus.Metric) {
	o, release := inForce[*reportPart](c.current)
	if release == nil {
		return
	}
	defer release()
	if o.counts == nil {
		return
	}
	counted, dropped := o.counts.Counted()
	out <- prometheus.MustNewConstMetric(c.messages, prometheus.CounterValue, float64(counted), "counted")
	out <- prometheus.MustNewConstMetric(c.messages, prometheus.CounterValue, float64(dropped), "dropped")
	out <- prometheus.MustNewConstMetric(c.messages, prometheus.CounterValue, float64(o.counts.Late()), "late")
	up := 0.0
	if o.counts.up() {
		up = 1
	}
	o.counts.mails.Collect(out)
	out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up)
}
