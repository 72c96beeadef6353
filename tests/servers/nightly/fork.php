<?php
$s = stream_socket_server("tcp://127.0.0.1:$argv[1]") or exit(1);
while (true) { $c = @stream_socket_accept($s, 3600); if ($c) { fwrite($c, "hello\n"); fclose($c); } }
