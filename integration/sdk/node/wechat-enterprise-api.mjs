// wechat-enterprise-api (WeCom) through a sidecar. It keeps its token in memory for ever, and
// answers 42001 by one more try with the same token, 40014 by nothing.
import API from 'wechat-enterprise-api';
import { agent, appid, base, departments, digest, mediaID, pinned, promised, secret, serve } from './commands.mjs';

const api = new API(appid, secret, agent);
if (!pinned) api.prefix = base + 'cgi-bin/'; // the one setting

await serve({
  token: async () => (await promised(api, 'getLatestToken')).accessToken,
  call: async () => departments(await promised(api, 'getDepartments')),
  send: async (text) => (await promised(api, 'send', { touser: '@all' }, { msgtype: 'text', text: { content: text } })).errmsg,
  upload: async (path) => (await promised(api, 'uploadMedia', path, 'image')).media_id,
  download: async () => digest(await promised(api, 'getMedia', mediaID)),
  sign: (url) => {
    api.ticketStore = {};
    return promised(api, 'getJsConfig', { url, jsApiList: ['scanQRCode'] });
  },
});
