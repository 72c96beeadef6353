run lambda { |env| [200, { 'content-type' => 'text/plain' }, ["rack\n"]] }
