// Node's client pg through a failover: an idle session with a named statement goes on with it, and one with an open
// transaction ends. It prints "ready", waits for a line, and prints the SQLSTATE of the transaction and "all is well".
const assert = require('assert')
const fs = require('fs')
const { pipeline } = require('stream/promises')
const { Readable } = require('stream')
const { Client } = require('pg')
const { from } = require('pg-copy-streams')
const cancels = require('./cancels.js')

const [port, user, password, database] = process.argv.slice(2)

async function connect() {
  const c = new Client({
    host: 'localhost', port: Number(port), user, password, database,
    ssl: { ca: fs.readFileSync(process.env.HAVEN_ROOT, 'utf8'), servername: 'localhost' },
  })
  await c.connect()
  return c
}

const add = (c, n) => c.query({ name: 'add', text: 'insert into node_f values ($1::int) returning n * 2 as twice', values: [n] })

function line() {
  return new Promise((resolve) => process.stdin.on('data', (text) => String(text).includes('go') && resolve()))
}

async function main() {
  const idle = await connect()
  const open = await connect()
  let code = ''
  open.on('error', (e) => { code = code || e.code })
  await idle.query('create table node_f (n int primary key)')
  assert.strictEqual((await add(idle, 1)).rows[0].twice, 2)
  await open.query('begin')
  await add(open, 100)
  const told = line()
  console.log('ready')
  await told
  assert.strictEqual((await add(idle, 2)).rows[0].twice, 4)
  await pipeline(Readable.from(['3\n', '4\n']), idle.query(from('copy node_f from stdin')))
  await cancels(idle, port)
  await assert.rejects(add(open, 101), (e) => { code = code || e.code; return true })
  const { rows } = await idle.query('select sum(n)::int as sum from node_f')
  assert.deepStrictEqual(rows, [{ sum: 10 }])
  await idle.end()
  console.log(code)
  console.log('all is well')
  process.exit(0)
}

main().catch((e) => {
  console.error(e)
  process.exit(1)
})
