# Delivers what postern-milterd has marked to the folder Junk. For Dovecot: put this
# into a folder of its own (for instance /etc/dovecot/sieve-before.d), compile it with
# sievec, and name it in Dovecot's settings. Dovecot 2.3 (Debian 12 and older):
#
#   plugin {
#     sieve_before = /etc/dovecot/sieve-before.d
#   }
#
# Dovecot 2.4 (Debian 13) does not start with that section, and has this one:
#
#   sieve_script dmarc-junk {
#     type = before
#     path = /etc/dovecot/sieve-before.d/dmarc-junk.sieve
#   }
#
# Copies of this field that come from outside are removed by postern-milterd, so
# that its presence is always its own word.
require ["fileinto", "mailbox"];

if header :is "X-Postern-Quarantine" "dmarc" {
	fileinto :create "Junk";
	stop;
}
