"""An app that uses wechatpy through a sidecar. It keeps its token and its tickets in memory, until 60 s before their end,
and answers 40001, 40014 and 42001 by another token and another try, as often as it gets them.
../node/commands.mjs says what it does."""

import hashlib
import json
import os
import sys
import time

from requests.adapters import HTTPAdapter
from wechatpy import WeChatClient, WeChatComponent
from wechatpy.work import WeChatClient as WorkClient

# All that a user needs: where the sidecar is, and the appid. The secret stays with the sidecar.
BASE = os.environ["WXTOKEN_BASE"]  # http://127.0.0.1:7200/
KIND = os.environ["WXTOKEN_KIND"]
APPID = os.environ["WXTOKEN_APPID"]
AGENT = os.environ["WXTOKEN_AGENT"]
SECRET = "the-sidecar-has-it"
MEDIA_ID = "size-70000"
ACCOUNT = os.environ.get("WXTOKEN_ACCOUNT")  # that authorises the third-party platform APPID
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"  # any: the sidecar opens the pushes


class Sidecar(HTTPAdapter):
    """The one setting: what is for WeChat goes to the sidecar."""

    def send(self, request, **kwargs):
        request.url = BASE + request.url.split("/", 3)[3]
        return super().send(request, **kwargs)


def through_sidecar(client):
    if os.environ.get("WXTOKEN_HOW") == "adapter":
        host = "qyapi" if KIND == "work" else "api"
        client._http.mount(f"https://{host}.weixin.qq.com/", Sidecar())
    return client


if KIND == "open":
    platform = through_sidecar(WeChatComponent(APPID, SECRET, SECRET, AES_KEY))
    platform.session.set(f"{APPID}_component_verify_ticket", SECRET)
else:
    client = through_sidecar(WorkClient(APPID, SECRET) if KIND == "work" else WeChatClient(APPID, SECRET))


def call(_):
    if KIND == "oa":
        button = client.menu.get()["menu"]["button"]
        return f"{button[0]['name']} {button[1]['url']}"
    if KIND == "mini":
        return client.get("https://api.weixin.qq.com/wxaapi/newtmpl/gettemplate")["data"][0]["title"]
    return client.department.list()[0]["name"]


def send(text):
    if KIND == "oa":
        return client.message.send_text("oOpenID", text)["errmsg"]
    if KIND == "mini":
        return client.wxa.send_subscribe_message("oOpenID", "t", {"thing1": {"value": text}})["errmsg"]
    return client.message.send_text(AGENT, "@all", text)["errmsg"]


def upload(path):
    with open(path, "rb") as picture:
        return client.media.upload("image", picture)["media_id"]


def download(_):
    picture = client.wxa.get_wxa_code_unlimited("a=1") if KIND == "mini" else client.media.download(MEDIA_ID)
    return hashlib.sha256(picture.content).hexdigest()


def signed(ticket, url):
    now = int(time.time())
    signature = client.jsapi.get_jsapi_signature("n0nce", ticket, now, url)
    return {"appId": APPID, "nonceStr": "n0nce", "timestamp": now, "signature": signature}


def sign(url):
    client.session.delete(f"{APPID}_jsapi_ticket")
    return signed(client.jsapi.get_jsapi_ticket(), url)


def agentsign(url):
    client.session.delete(f"{APPID}_agent_jsapi_ticket")
    return signed(client.jsapi.get_agent_jsapi_ticket(), url)


def login(code):
    return client.wxa.code_to_session(code)["openid"]


commands = {f.__name__: f for f in (call, send, upload, download, sign, agentsign, login)}
commands["ping"] = lambda _: "pong"
commands["token"] = lambda _: (platform if KIND == "open" else client).access_token


def exchange(code):
    got = platform.query_auth(code)["authorization_info"]
    return {"account": got["authorizer_appid"], "token": got["authorizer_access_token"], "secret": got["authorizer_refresh_token"]}


def refresh(_):
    got = platform.refresh_authorizer_token(ACCOUNT, "of-this-app")
    return {"token": got["authorizer_access_token"], "secret": got["authorizer_refresh_token"]}


def accountcall(_):
    return through_sidecar(platform.get_client_by_appid(ACCOUNT)).misc.get_wechat_ips()[0]


commands["platformcall"] = lambda _: platform.create_preauthcode()["pre_auth_code"]
commands |= {f.__name__: f for f in (exchange, refresh, accountcall)}

for line in sys.stdin:
    name, *args = json.loads(line)
    try:
        answer = {"result": commands[name]("".join(args))}
    except Exception as err:  # whatever it is, the test is to see it
        answer = {"error": f"{name}: {err!r}"}
    print(json.dumps(answer), flush=True)
