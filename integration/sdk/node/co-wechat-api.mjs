// co-wechat-api through a sidecar. It keeps its token and its tickets in memory, for all of
// expires_in, and answers 40001 and 42001 with up to three tries of its own.
import API from 'co-wechat-api';
import { appid, base, secret, serve } from './commands.mjs';

const api = new API(appid, secret);
api.prefix = base + 'cgi-bin/'; // the one setting

await serve({
  token: async () => (await api.ensureAccessToken()).accessToken,
  menu: async () => (await api.getMenu()).menu,
  send: async (openid, text) => (await api.sendText(openid, text)).errmsg,
  upload: async (path) => (await api.uploadMedia(path, 'image')).media_id,
  ticket: async () => (await api.ensureTicket('jsapi')).ticket,
  jssdk: async (url) => api.getJsConfig({ url, jsApiList: ['scanQRCode'] }),
});
