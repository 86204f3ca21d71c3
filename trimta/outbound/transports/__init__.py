"""How one envelope leaves: by SMTP or LMTP, to a command, into Maildirs."""
