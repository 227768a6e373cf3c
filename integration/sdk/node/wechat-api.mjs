// wechat-api through a sidecar. It keeps its token and its ticket in memory, for all of expires_in,
// and answers 40001 by one more try with the same token.
import API from 'wechat-api';
import { appid, base, menu, pinned, promised, secret, serve } from './commands.mjs';

const api = new API(appid, secret);
if (!pinned) api.endpoint = base.slice(0, -1); // the one setting, without a slash at the end

await serve({
  token: async () => (await promised(api, 'getLatestToken')).accessToken,
  call: async () => menu((await promised(api, 'getMenu')).menu),
  send: async (text) => (await promised(api, 'sendText', 'oOpenID', text)).errmsg,
  upload: async (path) => (await promised(api, 'uploadMedia', path, 'image')).media_id,
  sign: (url) => {
    api.ticketStore = {};
    return promised(api, 'getJsConfig', { url, jsApiList: ['scanQRCode'] });
  },
});
