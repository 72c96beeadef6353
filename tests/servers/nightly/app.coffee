http = require 'http'

server = http.createServer (request, response) ->
  response.end "slot #{process.env.MAITRED_SLOT}\n"
server.listen Number(process.argv[2]), '127.0.0.1'
