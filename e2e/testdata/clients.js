// Node's client pg through the pooler: named statements on more connections than there are servers, COPY in both
// directions, a cancel request. It prints "all is well", or fails.
const assert = require('assert')
const fs = require('fs')
const { pipeline } = require('stream/promises')
const { Readable } = require('stream')
const { Client } = require('pg')
const { from, to } = require('pg-copy-streams')
const cancels = require('./cancels.js')

const [port, user, password, database] = process.argv.slice(2)
const settings = {
  host: 'localhost', port: Number(port), user, password, database,
  ssl: { ca: fs.readFileSync(process.env.HAVEN_ROOT, 'utf8'), servername: 'localhost' },
}

async function connect() {
  const c = new Client(settings)
  await c.connect()
  return c
}

async function statements(c, i) {
  for (let n = 0; n < 30; n++) {
    const { rows } = await c.query({ name: 'named-' + (n % 5), text: `select $1::int as a, $2::int + ${n % 5} as b`, values: [i, n] })
    assert.deepStrictEqual(rows, [{ a: i, b: n + (n % 5) }])
  }
}

async function copy(c) {
  await c.query('create table node_t (n int, s text)')
  const lines = Array.from({ length: 2000 }, (_, n) => `${n}\tx\n`)
  await pipeline(Readable.from(lines), c.query(from('copy node_t from stdin')))
  let text = ''
  const out = c.query(to('copy node_t to stdout'))
  for await (const chunk of out) text += chunk
  assert.strictEqual(text, lines.join(''))
  await c.query('drop table node_t')
}

async function main() {
  const clients = await Promise.all(Array.from({ length: 6 }, connect))
  await Promise.all(clients.map(statements))
  await assert.rejects(clients[0].query('select 1/0'), { code: '22012' })
  await copy(clients[0])
  await cancels(clients[1], port)
  await Promise.all(clients.map((c) => c.end()))
  await assert.rejects(new Client({ ...settings, password: 'wrong' }).connect(), { code: '28P01' })
  console.log('all is well')
}

main().catch((e) => {
  console.error(e)
  process.exit(1)
})
