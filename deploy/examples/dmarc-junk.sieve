# Delivers what postern-milterd has marked to the folder Junk. For Dovecot: put this
# into the folder that sieve_before names (for instance /etc/dovecot/sieve-before.d),
# and compile it with sievec.
#
# Copies of this field that come from outside are removed by postern-milterd, so
# that its presence is always its own word.
require ["fileinto", "mailbox"];

if header :is "X-Postern-Quarantine" "dmarc" {
	fileinto :create "Junk";
	stop;
}
