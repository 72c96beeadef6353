use HTTP::Daemon; use HTTP::Response;
my $d = HTTP::Daemon->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], ReuseAddr => 1) or die $!;
while (my $c = $d->accept) {
    while (my $r = $c->get_request) { $c->send_response(HTTP::Response->new(200, 'OK', ['Content-Type' => 'text/plain'], "perl\n")) }
    $c->close;
}
