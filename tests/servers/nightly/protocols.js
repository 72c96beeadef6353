// node protocols.js NAME PORT: a server of another protocol than HTTP.
const [name, port] = [process.argv[2], Number(process.argv[3])];
const text = `slot ${process.env.MAITRED_SLOT}\n`;
const host = '127.0.0.1';

const protocols = {
  net() {
    require('net').createServer((socket) => socket.pipe(socket)).listen(port, host);
  },

  smtp() {
    const { SMTPServer } = require('smtp-server');
    new SMTPServer({ disabledCommands: ['AUTH', 'STARTTLS'], name: 'mail.example' }).listen(port, host);
  },

  ftp() {
    const FtpSrv = require('ftp-srv');
    new FtpSrv({ url: `ftp://${host}:${port}`, anonymous: true }).listen();
  },

  async mqtt() {
    const { Aedes } = require('aedes');
    const broker = await Aedes.createBroker();
    require('net').createServer(broker.handle).listen(port, host);
  },

  telnet() {
    require('telnet').createServer((client) => client.end('hello\n')).listen(port, host);
  },

  ldap() {
    const server = require('ldapjs').createServer();
    server.del('o=example', (request, response) => response.end());
    server.listen(port, host);
  },

  mysql() {
    const server = require('mysql2').createServer();
    server.on('connection', (connection) => {
      connection.on('error', () => {});
      connection.serverHandshake({
        protocolVersion: 10, serverVersion: '8.0.0-node', connectionId: 1,
        statusFlags: 2, characterSet: 8, capabilityFlags: 0xffffff,
      });
    });
    server.listen(port, host);
  },

  dns() {
    const { Packet, createServer } = require('dns2');
    const handle = (request, send) => {
      const response = Packet.createResponseFromRequest(request);
      const { name } = request.questions[0];
      response.answers.push({
        name, type: Packet.TYPE.A, class: Packet.CLASS.IN, ttl: 60, address: '192.0.2.1',
      });
      send(response);
    };
    createServer({ tcp: true, handle }).listen({ tcp: { port, address: host } });
  },

  grpc() {
    const grpc = require('@grpc/grpc-js');
    const server = new grpc.Server();
    const codec = (value) => value;
    const method = {
      path: '/Front/Index', requestStream: false, responseStream: false,
      requestSerialize: codec, requestDeserialize: codec,
      responseSerialize: codec, responseDeserialize: codec,
    };
    server.addService({ index: method }, { index: (call, done) => done(null, Buffer.from(text)) });
    server.bindAsync(`${host}:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
      if (error) throw error;
    });
  },

  ssh() {
    const { Server, utils } = require('ssh2');
    const { private: key } = utils.generateKeyPairSync('ed25519');
    const server = new Server({ hostKeys: [key] }, (client) => client.on('error', () => {}));
    server.listen(port, host);
  },

  amqp() {
    const container = require('rhea').create_container({ id: 'example' });
    container.on('disconnected', () => {});
    container.listen({ port, host });
  },

  dnode() {
    require('dnode')({ index: (done) => done(text) }).listen(port, host);
  },

  thrift() {
    const thrift = require('thrift');
    const processor = function () {
      this.process = (input, output) => {
        const { fname, rseqid } = input.readMessageBegin();
        input.skip(thrift.Thrift.Type.STRUCT);
        input.readMessageEnd();
        output.writeMessageBegin(fname, thrift.Thrift.MessageType.REPLY, rseqid);
        output.writeStructBegin('result');
        output.writeFieldStop();
        output.writeStructEnd();
        output.writeMessageEnd();
        output.flush();
      };
    };
    const options = { protocol: thrift.TJSONProtocol, transport: thrift.TBufferedTransport };
    thrift.createServer(processor, {}, options).listen(port, host);
  },

  'json-rpc'() {
    const jayson = require('jayson');
    new jayson.Server({ index: (params, done) => done(null, text) }).tcp().listen(port, host);
  },

  socks() {
    require('@pondwader/socks5-server').createServer({ port, hostname: host });
  },

  axon() {
    const socket = require('axon').socket('rep');
    socket.on('message', (message, reply) => reply(text));
    socket.bind(port, host);
  },

  modbus() {
    const { ServerTCP } = require('modbus-serial');
    new ServerTCP({ getHoldingRegister: (address) => address + 1 }, { host, port, unitID: 1 });
  },

  jsmodbus() {
    const server = require('net').createServer();
    new (require('jsmodbus').server.TCP)(server, { holding: Buffer.from([0, 1, 0, 2]) });
    server.listen(port, host);
  },

  memcached() {
    require('memcached-njs/src').startServer({ port });
  },

  nntp() {
    const Server = require('nntp-server');
    new Server({ address: `nntp://${host}:${port}` }).listen(`nntp://${host}:${port}`);
  },
};

protocols[name]();
