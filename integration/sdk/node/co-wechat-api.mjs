// co-wechat-api through a sidecar. It keeps its token and its tickets in memory, for all of
// expires_in, and answers 40001 and 42001 with up to three tries of its own.
import API from 'co-wechat-api';
import { appid, base, digest, kind, mediaID, menu, pinned, secret, serve } from './commands.mjs';

const api = new API(appid, secret);
if (!pinned) { // the one setting: each group of calls has its own
  api.prefix = base + 'cgi-bin/';
  api.fileServerPrefix = base + 'cgi-bin/';
  api.wxaPrefix = base + 'wxa/';
  api.snsPrefix = base + 'sns/';
  api.customservicePrefix = base + 'customservice/';
  api.merchantPrefix = base + 'merchant/';
}

const mini = kind === 'mini';

await serve({
  token: async () => (await api.ensureAccessToken()).accessToken,
  call: async () => menu((await api.getMenu()).menu),
  send: async (text) => (mini
    ? await api.sendSubscribeMessage('oOpenID', 'template', 'pages/index', { thing1: { value: text } })
    : await api.sendText('oOpenID', text)).errmsg,
  upload: async (path) => (await api.uploadMedia(path, 'image')).media_id,
  download: async () => digest(mini ? await api.getWXACodeUnlimit('a=1', 'pages/index') : await api.getMedia(mediaID)),
  sign: (url) => {
    api.ticketStore = {};
    return api.getJsConfig({ url, jsApiList: ['scanQRCode'] });
  },
  login: async (code) => (await api.code2Session(code)).openid,
});
