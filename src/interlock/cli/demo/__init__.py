"""`interlock demo`: the whole loop on the flights of 2013, through the commands and HTTP calls that a user would use."""
