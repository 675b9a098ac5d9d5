package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

const (
	fromMails = 800 // a round
	// There are many fromRounds, because the result is a small difference of two
	// figures.
	fromRounds = 7 * rounds
)

// benchFrom measures the CPU time that From ownership adds to a signed mail, with a
// hash: table of 100,000 senders. Two daemons sign the same mails in turn. Ed25519 leaves
// the most to see, and --owner-self is off because the table would not be asked otherwise.
func benchFrom(ctx context.Context, e *env) ([]result, error) {
	table, err := writeOwners(e, "from-owners")
	if err != nil {
		return nil, err
	}
	if err := appendFile(table, "a@home.example\ta@home.example\n"); err != nil {
		return nil, err
	}
	plain, plainSocket, err := startMilterd(ctx, e, "postern-milterd", "ed25519")
	if err != nil {
		return nil, err
	}
	defer plain.Kill()
	owned, ownedSocket, err := startMilterd(ctx, e, "postern-milterd", "ed25519", "--from-ownership=enforce", "--owners=hash:"+table, "--owner-self=false")
	if err != nil {
		return nil, err
	}
	defer owned.Kill()
	load := func(pid int, socket string) (float64, error) {
		l := signedLoad(socket, fromMails)
		l.login = l.sender
		return l.cost(ctx, pid)
	}
	var added, without []float64
	for range fromRounds {
		off, err := load(plain.PID(), plainSocket)
		if err != nil {
			return nil, err
		}
		on, err := load(owned.PID(), ownedSocket)
		if err != nil {
			return nil, err
		}
		added, without = append(added, on-off), append(without, off)
	}
	return []result{{
		what: "CPU that From ownership adds to a signed mail, hash: table", value: median(added), unit: "µs", most: 15,
		detail: fmt.Sprintf("to %.0f µs, %s", median(without), spread(added)),
	}}, errors.Join(plain.Stop(), owned.Stop())
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
