#!/bin/sh
# switch.sh box|watch|postern: puts the main.cf and master.cf lines of that folder
# in force with postconf(1). It changes nothing else, may be run again at any
# time, and reloads nothing.
set -eu
cd "$(dirname "$0")/${1:?box, watch or postern}"
sed '/^#/d' main.cf | while IFS= read -r line; do
	postconf -e "$line"
done
# Each entry on one line, as postconf takes it.
sed '/^#/d' master.cf | awk '
	/^[^ ]/ { if (entry != "") print entry; entry = $0; next }
	{ sub(/^ +/, " "); entry = entry $0 }
	END { print entry }' | while IFS= read -r entry; do
	postconf -Me "${entry%% *}/inet=$entry"
done
