package S; use base 'Net::Server::PreFork';
sub process_request { print "hello\n" }
S->run(host => '127.0.0.1', port => $ARGV[0], ipv => 4, min_servers => 2, max_servers => 4, min_spare_servers => 1, max_spare_servers => 3);
