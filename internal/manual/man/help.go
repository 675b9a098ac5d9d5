package main

import (
	"regexp"
	"strings"
)

// flag is a flag in the help text of a program.
type flag struct{ names, text string }

var (
	// "  -h, --help   text" and "      --listen endpoint   text"
	flagLine    = regexp.MustCompile(`^ {2}(?:-\w, | {4})--\S`)
	flagColumns = regexp.MustCompile(`^\s*((?:-\w, )?--\S+(?: \S+)*)(?: {2,}(.*))?$`)
	commandLine = regexp.MustCompile(`^  (\S+) (.*?) {2,}(.*)$`)
	pathWord    = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// parseFlags parses the flags in a help text. rest is the text after them.
func parseFlags(help string) (flags []flag, rest string) {
	var tail []string
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, "\n")
		switch {
		case flagLine.MatchString(line):
			m := flagColumns.FindStringSubmatch(line)
			flags = append(flags, flag{names: m[1], text: m[2]})
			tail = nil
		case len(flags) > 0 && len(tail) == 0 && strings.HasPrefix(line, "        "):
			last := &flags[len(flags)-1]
			last.text = strings.TrimSpace(last.text + " " + strings.TrimSpace(line))
		case len(flags) > 0:
			tail = append(tail, line)
		}
	}
	return flags, strings.TrimSpace(strings.Join(tail, " "))
}

// listed is a command in the help's list of commands.
type listed struct{ path, args, help string }

// parseCommands parses the list of commands in a help text.
func parseCommands(program, help string) []listed {
	var all []listed
	for line := range strings.Lines(help) {
		m := commandLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil || m[1] != program {
			continue
		}
		words := strings.Fields(m[2])
		n := 0
		for n < len(words) && pathWord.MatchString(words[n]) {
			n++
		}
		all = append(all, listed{strings.Join(words[:n], " "), strings.Join(words[n:], " "), m[3]})
	}
	return all
}
