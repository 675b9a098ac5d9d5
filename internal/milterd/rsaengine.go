package milterd

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/rsaengine"
	"github.com/postern-mail/postern/internal/service"
)

const flagRSAEngine = "rsa-engine"

// Tune prepares the engine, see rsaengine.Tune. It must be called first in main, because
// it may replace this process.
func Tune() { rsaengine.Tune() }

// engineKey is the key of the engine that makes RSA signatures.
type engineKey struct{ name string }

// openEngine opens the engine of --rsa-engine, which is kept over reloads. An engine
// that is not built into this program is an error if mail is going to be signed. A mail
// can be explained without it.
func (o *signPart) openEngine(n *needs) error {
	name := o.RSAEngine
	if n.readOnly && !n.set.CheckOnly() {
		name = rsaengine.Go
	}
	var err error
	o.engine, err = service.Keep(n.life, engineKey{name}, func() (service.Opened[*rsaengine.Engine], error) {
		engine, err := rsaengine.New(name, func(err error) {
			n.Log.Error("OpenSSL cannot make an RSA signature: Go makes it, which takes about three times the CPU time; look at the installed libcrypto (package libssl3) and its openssl.cnf, then restart, or set rsa-engine to go", zap.Error(err))
		})
		if err == nil && engine.Name() != rsaengine.Go {
			n.Log.Info("RSA signatures are made by OpenSSL", zap.String("version", engine.Version()))
		}
		return service.Opened[*rsaengine.Engine]{Value: engine}, err
	})
	if err != nil {
		return n.set.Errorf(flagRSAEngine, "%q: %w", name, err)
	}
	return nil
}

// engineCollector shows which engine makes RSA signatures:
//
//	postern_rsa_engine{engine}          1 for the one in use: go or openssl
//	postern_rsa_engine_fallbacks_total  signatures that Go made because OpenSSL could not
type engineCollector struct {
	current           *current
	engine, fallbacks *prometheus.Desc
}

func newEngineCollector(c *current) engineCollector {
	return engineCollector{
		c,
		prometheus.NewDesc("postern_rsa_engine", "1 for the engine that makes RSA signatures.", []string{"engine"}, nil),
		prometheus.NewDesc("postern_rsa_engine_fallbacks_total", "RSA signatures that Go made because OpenSSL could not.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c engineCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.engine
	out <- c.fallbacks
}

// Collect implements prometheus.Collector.
func (c engineCollector) Collect(out chan<- prometheus.Metric) {
	o, release := inForce[*signPart](c.current)
	if release == nil {
		return
	}
	defer release()
	out <- prometheus.MustNewConstMetric(c.engine, prometheus.GaugeValue, 1, o.engine.Name())
	out <- prometheus.MustNewConstMetric(c.fallbacks, prometheus.CounterValue, float64(o.engine.Fallbacks()))
}
