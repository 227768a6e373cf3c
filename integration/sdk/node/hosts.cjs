// Stands for the hosts file of a pod, and for port 443: a connection to a name of WeChat goes to the https face.
const net = require('node:net');

const { connect } = net.Socket.prototype;
const port = Number(process.env.WXTOKEN_TLS_PORT);

net.Socket.prototype.connect = function (...args) {
  const normalized = Array.isArray(args[0]) ? args[0] : args;
  const options = normalized[0];
  if (/\.weixin\.qq\.com$/.test(options?.host) && Number(options.port) === 443) {
    normalized[0] = { ...options, host: '127.0.0.1', port };
  }
  return connect.apply(this, args);
};
