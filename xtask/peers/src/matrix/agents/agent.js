// A TLS peer on Node's tls module. Reads one command a line, answers one line; see agent.rs.
'use strict';
const fs = require('fs');
const readline = require('readline');
const tls = require('tls');

const sessions = new Map();

function settings(options) {
    const versions = options.versions.split(',');
    const settings = { minVersion: `TLSv${versions[0]}`, maxVersion: `TLSv${versions.at(-1)}` };
    if (options.certificate) {
        settings.cert = fs.readFileSync(options.certificate);
        settings.key = fs.readFileSync(options.key);
    }
    if (options.authority) settings.ca = fs.readFileSync(options.authority);
    if (options.alpn) settings.ALPNProtocols = options.alpn.split(',');
    if (options.ciphers) settings.ciphers = options.ciphers;
    return settings;
}

function listen(options, reply) {
    const mutual = options.authority !== undefined;
    const server = tls.createServer({ ...settings(options), requestCert: mutual, rejectUnauthorized: mutual });
    server.on('secureConnection', (stream) => {
        stream.on('error', () => stream.destroy());
        stream.once('data', () => stream.end('HTTP/1.0 200 OK\r\n\r\nhello\n'));
    });
    server.on('error', (error) => reply(`failed ${error.message}`));
    server.listen({ port: options.port, host: '::' }, () => reply('listening'));
}

function connect(options, reply) {
    const stream = tls.connect({
        ...settings(options),
        host: options.address,
        port: options.port,
        servername: options.name || '',
        rejectUnauthorized: options.authority !== undefined,
        session: sessions.get(options.session),
    });
    if (options.session) stream.on('session', (session) => sessions.set(options.session, session));
    let outcome = 'done';
    stream.setTimeout(5000, () => stream.destroy());
    stream.on('secureConnect', () => stream.write('GET / HTTP/1.0\r\n\r\n'));
    stream.on('error', (error) => { outcome = `failed ${error.message.split('\n')[0]}`; });
    stream.on('data', () => {});
    stream.on('close', () => reply(outcome));
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
    const [verb, ...words] = line.split(' ');
    const options = Object.fromEntries(words.map((word) => word.split(/=(.*)/s, 2)));
    ({ listen, connect })[verb](options, (reply) => process.stdout.write(`${reply}\n`));
});
