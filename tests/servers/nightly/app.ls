require! http

server = http.create-server (request, response) -> response.end "slot #{process.env.MAITRED_SLOT}\n"
server.listen (Number process.argv[*-1]), '127.0.0.1'
