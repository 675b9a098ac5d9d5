//go:build openssl && cgo

package rsaengine

/*
#include <openssl/bn.h>

// Computes what most of the time of an RSA-2048 signature goes into: a power of a number
// of 1024 bits. Any odd modulus takes the same time.
static int postern_power(void) {
	unsigned char octets[128];
	BIGNUM *base = NULL, *modulus = NULL, *power = BN_new();
	BN_CTX *ctx = BN_CTX_new();
	int i, ok;
	for (i = 0; i < (int)sizeof octets; i++)
		octets[i] = (unsigned char)(255 - 2 * i);
	modulus = BN_bin2bn(octets, sizeof octets, NULL);
	octets[0] = 171;
	base = BN_bin2bn(octets, sizeof octets, NULL);
	ok = ctx != NULL && power != NULL && modulus != NULL && base != NULL
		&& BN_mod_exp_mont_consttime(power, base, base, modulus, ctx, NULL);
	BN_free(base);
	BN_free(modulus);
	BN_free(power);
	BN_CTX_free(ctx);
	return ok;
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/cpu"
)

const (
	// capabilities is the variable that limits which instructions libcrypto uses. It is
	// read when libcrypto is loaded, before main. See OPENSSL_ia32cap(3).
	capabilities = "OPENSSL_ia32cap"
	withoutADX   = ":~0x80000"
	// measureOnly is set for a process that only prints how long the powers take.
	measureOnly = "POSTERN_RSA_MEASURE"
)

// Tune makes libcrypto use AVX2 in the place of the ADX instructions if the processor
// computes RSA faster so. libcrypto always prefers ADX. On AMD's Zen 3 it takes half as
// long again as AVX2.
//
// Tune measures both and then replaces this process by the same program with another
// environment. It must be called before anything else in main. A variable of the operator
// is not changed. If anything goes wrong, libcrypto decides.
func Tune() {
	if os.Getenv(measureOnly) != "" {
		fmt.Println(int64(measure()))
		os.Exit(0)
	}
	if _, set := os.LookupEnv(capabilities); set || !cpu.X86.HasADX || !cpu.X86.HasAVX2 {
		return
	}
	program, err := os.Executable()
	if err != nil {
		return
	}
	without := append(os.Environ(), capabilities+"="+withoutADX)
	const gain = 5 // percent, above the noise
	if own, other, err := compare(program, without); err == nil && other < own*(100-gain)/100 {
		_ = syscall.Exec(program, os.Args, without)
	}
}

// compare measures in turn in this process and with another environment, because the
// speed of a busy machine changes within milliseconds. It returns the shortest times.
func compare(program string, environ []string) (own, other time.Duration, err error) {
	const turns = 3
	var here, there [turns]time.Duration
	for i := range turns {
		if there[i], err = measureIn(program, environ); err != nil {
			return 0, 0, err
		}
		here[i] = measure()
	}
	return slices.Min(here[:]), slices.Min(there[:]), nil
}

// measureIn measures in a process with another environment.
func measureIn(program string, environ []string) (time.Duration, error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, program)
	c.Env = append(environ, measureOnly+"=1")
	out, err := c.Output()
	if err != nil {
		return 0, err
	}
	nanos, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err == nil && nanos <= 0 {
		err = errors.New("libcrypto computed nothing")
	}
	return time.Duration(nanos), err
}

// measure returns the shortest time of some powers, or 0 if libcrypto failed. Other
// programs make times longer, never shorter. A time is so short that it is often not
// interrupted.
func measure() (best time.Duration) {
	const rounds = 24
	for range rounds {
		start := time.Now()
		if C.postern_power() != 1 {
			return 0
		}
		if took := time.Since(start); best == 0 || took < best {
			best = took
		}
	}
	return best
}

// tuned returns what the version says about the instructions.
func tuned() string {
	if value := os.Getenv(capabilities); value != "" {
		return ", " + capabilities + "=" + value
	}
	return ""
}
