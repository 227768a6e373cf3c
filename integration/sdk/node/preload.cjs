// node --require ./preload.cjs app.js: requests for WeChat go to the sidecar.
const http = require('node:http');
const https = require('node:https');
const { urlToHttpOptions } = require('node:url');

const sidecar = new URL(process.env.WXTOKEN_BASE ?? 'http://127.0.0.1:7200/');
const isWeChat = (host) => /\.weixin\.qq\.com$/.test(host ?? '');
const { request } = https;
const { fetch } = globalThis;

https.request = (url, options, callback) => {
  if (typeof url === 'string' || url instanceof URL) url = urlToHttpOptions(new URL(url));
  else [url, options, callback] = [{}, url, options];
  if (typeof options === 'function') [options, callback] = [{}, options];
  const all = { ...url, ...options };
  if (!isWeChat(all.hostname ?? all.host)) return request.call(https, all, callback);
  const { hostname, port } = sidecar;
  return http.request({ ...all, protocol: 'http:', host: hostname, hostname, port, agent: undefined }, callback);
};
https.get = (...args) => https.request(...args).end();
globalThis.fetch = (input, init) => {
  const url = new URL(input.url ?? input);
  if (!isWeChat(url.hostname)) return fetch(input, init);
  const there = new URL(url.pathname + url.search, sidecar);
  return fetch(input instanceof Request ? new Request(there, input) : there, init);
};
require('node:module').syncBuiltinESMExports();
