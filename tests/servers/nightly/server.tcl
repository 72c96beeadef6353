proc serve {c host port} { puts $c hello; close $c }
socket -server serve -myaddr 127.0.0.1 [lindex $argv 0]
vwait forever
