// A server under Node's own cluster module, by default worker-examples/unaware.js.
//   node cluster.js WORKERS PORT [SERVER]   round-robin
//   NODE_CLUSTER_SCHED_POLICY=none node …   shared handle
const cluster = require('node:cluster');
if (cluster.isPrimary) {
  let listening = 0;
  cluster.on('listening', () => ++listening === Number(process.argv[2]) && console.log('ready'));
  for (let slot = 0; slot < Number(process.argv[2]); slot++) cluster.fork({ MAITRED_SLOT: slot });
} else {
  process.argv[2] = process.argv[3];
  require(process.argv[4] ?? '../../worker-examples/unaware.js');
}
