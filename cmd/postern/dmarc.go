package main

func dmarcGroup() group {
	return group{"dmarc", "Read the reports that receivers send about mail in our domains' names, and send ours.", append(dmarcReportCommands(), dmarcReadCommand())}
}
