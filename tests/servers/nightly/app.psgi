sub { [200, ['Content-Type' => 'text/plain'], ["psgi\n"]] };
