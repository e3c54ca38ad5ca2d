// cancels has a statement of the client cancelled, which ends with SQLSTATE 57014.
//
// The package's own cancel method does not speak TLS: the request is made here, as the protocol says.
const assert = require('assert')
const net = require('net')

module.exports = async function cancels(client, port) {
  const query = client.query('select pg_sleep(60)').then(() => 'it ran to its end', (e) => e.code)
  await new Promise((done) => setTimeout(done, 500))
  const socket = net.connect(Number(port), 'localhost')
  const request = Buffer.alloc(16)
  request.writeInt32BE(16, 0)
  request.writeInt32BE(80877102, 4)
  request.writeInt32BE(client.processID, 8)
  request.writeInt32BE(client.secretKey, 12)
  socket.write(request)
  assert.strictEqual(await query, '57014')
  socket.destroy()
}
