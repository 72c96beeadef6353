# An ordinary Rack application.
run lambda { |env|
  body = "slot #{ENV['MAITRED_SLOT']}, process #{Process.pid}\n"
  [200, { 'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s }, [body]]
}
