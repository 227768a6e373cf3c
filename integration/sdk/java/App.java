import cn.binarywang.wx.miniapp.api.WxMaService;
import cn.binarywang.wx.miniapp.api.impl.WxMaServiceImpl;
import cn.binarywang.wx.miniapp.bean.WxMaSubscribeMessage;
import cn.binarywang.wx.miniapp.config.impl.WxMaDefaultConfigImpl;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.MessageDigest;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import me.chanjar.weixin.common.bean.WxJsapiSignature;
import me.chanjar.weixin.common.bean.menu.WxMenuButton;
import me.chanjar.weixin.common.enums.TicketType;
import me.chanjar.weixin.cp.api.WxCpService;
import me.chanjar.weixin.cp.api.impl.WxCpServiceImpl;
import me.chanjar.weixin.cp.bean.WxCpAgentJsapiSignature;
import me.chanjar.weixin.cp.bean.message.WxCpMessage;
import me.chanjar.weixin.cp.bean.WxCpTpPermanentCodeInfo;
import me.chanjar.weixin.cp.config.impl.WxCpDefaultConfigImpl;
import me.chanjar.weixin.cp.config.impl.WxCpTpDefaultConfigImpl;
import me.chanjar.weixin.cp.tp.service.WxCpTpService;
import me.chanjar.weixin.cp.tp.service.impl.WxCpTpServiceImpl;
import me.chanjar.weixin.mp.api.WxMpService;
import me.chanjar.weixin.mp.api.impl.WxMpServiceImpl;
import me.chanjar.weixin.mp.bean.kefu.WxMpKefuMessage;
import me.chanjar.weixin.mp.config.WxMpHostConfig;
import me.chanjar.weixin.mp.config.impl.WxMpDefaultConfigImpl;
import me.chanjar.weixin.open.api.WxOpenComponentService;
import me.chanjar.weixin.open.api.WxOpenService;
import me.chanjar.weixin.open.api.impl.WxOpenInMemoryConfigStorage;
import me.chanjar.weixin.open.api.impl.WxOpenServiceImpl;
import me.chanjar.weixin.open.bean.auth.WxOpenAuthorizationInfo;

/**
 * An app that uses WxJava through a sidecar. It keeps its tokens and its tickets in memory, until 200 s before their end,
 * and answers 40001, 40014 and 42001 by another token and up to five tries. ../node/commands.mjs says what it does.
 */
public class App {
  // All that a user needs: where the sidecar is, and the appid. The secret stays with the sidecar.
  static final String BASE = System.getenv("WXTOKEN_BASE").replaceAll("/$", ""); // http://127.0.0.1:7200
  static final String APPID = System.getenv("WXTOKEN_APPID");
  static final String AGENT = System.getenv("WXTOKEN_AGENT");
  static final String SECRET = "the-sidecar-has-it";
  static final String MEDIA_ID = "size-70000";
  static final String ACCOUNT = System.getenv("WXTOKEN_ACCOUNT"); // that authorises the platform APPID

  interface Command {
    Object run(String arg) throws Exception;
  }

  static Map<String, Command> official() {
    WxMpDefaultConfigImpl config = new WxMpDefaultConfigImpl();
    config.setAppId(APPID);
    config.setSecret(SECRET);
    config.setHostConfig(WxMpHostConfig.builder().apiHost(BASE).build()); // the one setting
    WxMpService mp = new WxMpServiceImpl();
    mp.setWxMpConfigStorage(config);

    Map<String, Command> commands = new HashMap<>();
    commands.put("token", arg -> mp.getAccessToken());
    commands.put("call", arg -> {
      List<WxMenuButton> buttons = mp.getMenuService().menuGet().getMenu().getButtons();
      return buttons.get(0).getName() + " " + buttons.get(1).getUrl();
    });
    commands.put("send", text -> {
      mp.getKefuService().sendKefuMessage(WxMpKefuMessage.TEXT().toUser("oOpenID").content(text).build());
      return "ok";
    });
    commands.put("upload", path -> mp.getMaterialService().mediaUpload("image", new File(path)).getMediaId());
    commands.put("download", arg -> digest(mp.getMaterialService().mediaDownload(MEDIA_ID)));
    commands.put("sign", url -> {
      config.expireTicket(TicketType.JSAPI);
      return signed(mp.createJsapiSignature(url));
    });
    return commands;
  }

  static Map<String, Command> mini() {
    WxMaDefaultConfigImpl config = new WxMaDefaultConfigImpl();
    config.setAppid(APPID);
    config.setSecret(SECRET);
    config.setApiHostUrl(BASE); // the one setting
    WxMaService app = new WxMaServiceImpl();
    app.setWxMaConfig(config);

    Map<String, Command> commands = new HashMap<>();
    commands.put("token", arg -> app.getAccessToken());
    commands.put("call", arg -> app.getSubscribeService().getTemplateList().get(0).getTitle());
    commands.put("send", text -> {
      app.getMsgService().sendSubscribeMsg(WxMaSubscribeMessage.builder().toUser("oOpenID").templateId("t")
          .data(List.of(new WxMaSubscribeMessage.MsgData("thing1", text))).build());
      return "ok";
    });
    commands.put("upload", path -> app.getMediaService().uploadMedia("image", new File(path)).getMediaId());
    commands.put("download", arg ->
        digest(app.getQrcodeService().createWxaCodeUnlimitBytes("a=1", "pages/index", false, "release", 430, false, null, false)));
    commands.put("sign", url -> {
      config.expireJsapiTicket();
      return signed(app.getJsapiService().createJsapiSignature(url));
    });
    commands.put("login", code -> app.jsCode2SessionInfo(code).getOpenid());
    return commands;
  }

  static Map<String, Command> work() {
    WxCpDefaultConfigImpl config = new WxCpDefaultConfigImpl();
    config.setCorpId(APPID);
    config.setCorpSecret(SECRET);
    config.setAgentId(Integer.valueOf(AGENT));
    config.setBaseApiUrl(BASE); // the one setting
    WxCpService cp = new WxCpServiceImpl();
    cp.setWxCpConfigStorage(config);

    Map<String, Command> commands = new HashMap<>();
    commands.put("token", arg -> cp.getAccessToken());
    commands.put("call", arg -> cp.getDepartmentService().list(null).get(0).getName());
    commands.put("send", text ->
        cp.getMessageService().send(WxCpMessage.TEXT().toUser("@all").agentId(Integer.valueOf(AGENT)).content(text).build()).getErrMsg());
    commands.put("upload", path -> cp.getMediaService().upload("image", new File(path)).getMediaId());
    commands.put("download", arg -> digest(cp.getMediaService().download(MEDIA_ID)));
    commands.put("sign", url -> {
      config.expireJsapiTicket();
      return signed(cp.createJsapiSignature(url));
    });
    commands.put("agentsign", url -> {
      config.expireAgentJsapiTicket();
      WxCpAgentJsapiSignature s = cp.createAgentJsapiSignature(url);
      return signed(s.getCorpid(), s.getNonceStr(), s.getTimestamp(), s.getSignature());
    });
    return commands;
  }

  /** A third-party platform. Its addresses are constants, so it takes the https face, and nothing is set. */
  static Map<String, Command> open() {
    WxOpenInMemoryConfigStorage config = new WxOpenInMemoryConfigStorage();
    config.setComponentAppId(APPID);
    config.setComponentAppSecret(SECRET);
    config.setComponentVerifyTicket("any");
    URI proxy = URI.create(System.getenv("HTTPS_PROXY")); // in place of the pod's hosts file
    config.setHttpProxyHost(proxy.getHost());
    config.setHttpProxyPort(proxy.getPort());
    WxOpenService platform = new WxOpenServiceImpl();
    platform.setWxOpenConfigStorage(config);
    WxOpenComponentService component = platform.getWxOpenComponentService();

    Map<String, Command> commands = new HashMap<>();
    commands.put("token", arg -> component.getComponentAccessToken(false));
    commands.put("platformcall", arg -> {
      String url = component.getPreAuthUrl("https://shop.example.com/");
      return url.replaceAll(".*pre_auth_code=([^&]*).*", "$1");
    });
    commands.put("exchange", code -> {
      WxOpenAuthorizationInfo got = component.getQueryAuth(code).getAuthorizationInfo();
      return Map.of("account", got.getAuthorizerAppid(), "token", got.getAuthorizerAccessToken(), "secret", got.getAuthorizerRefreshToken());
    });
    commands.put("refresh", arg -> {
      config.setAuthorizerRefreshToken(ACCOUNT, "of-this-app");
      return Map.of("token", component.getAuthorizerAccessToken(ACCOUNT, true), "secret", config.getAuthorizerRefreshToken(ACCOUNT));
    });
    commands.put("accountcall", arg -> component.getWxMpServiceByAppid(ACCOUNT).getCallbackIP()[0]);
    return commands;
  }

  /** A suite of WeCom, and its provider. */
  static Map<String, Command> suite() {
    WxCpTpDefaultConfigImpl config = new WxCpTpDefaultConfigImpl() {
      @Override
      public String getProviderSecret() { // which cannot be set
        return SECRET;
      }
    };
    config.setSuiteId(APPID);
    config.setSuiteSecret(SECRET);
    config.updateSuiteTicket("any", 1 << 30);
    config.setCorpId(System.getenv("WXTOKEN_PROVIDER"));
    config.setBaseApiUrl(BASE); // the one setting
    WxCpTpService suite = new WxCpTpServiceImpl();
    suite.setWxCpTpConfigStorage(config);

    Map<String, Command> commands = new HashMap<>();
    commands.put("token", arg -> suite.getSuiteAccessToken());
    commands.put("platformcall", arg ->
        suite.getPreAuthUrl("https://shop.example.com/", "s").replaceAll(".*pre_auth_code=([^&]*).*", "$1"));
    commands.put("exchange", code -> {
      WxCpTpPermanentCodeInfo got = suite.getPermanentCodeInfo(code);
      String corp = got.getAuthCorpInfo().getCorpId();
      return Map.of("account", corp, "token", got.getAccessToken(), "secret", got.getPermanentCode(),
          "info", suite.getAuthInfo(corp, got.getPermanentCode()).getAuthCorpInfo().getCorpId());
    });
    commands.put("refresh", arg -> Map.of("token", suite.getCorpToken(ACCOUNT, "wxtoken", true).getAccessToken(), "secret", "of-this-app"));
    commands.put("accountcall", arg -> {
      String token = suite.getCorpToken(ACCOUNT, "wxtoken").getAccessToken();
      return suite.get(config.getApiUrl("/cgi-bin/getcallbackip") + "?access_token=" + token, null, true).replaceAll("(?s).*?\\[\"([^\"]*).*", "$1");
    });
    commands.put("providertoken", arg -> suite.getWxCpProviderToken());
    return commands;
  }

  static Object signed(WxJsapiSignature s) {
    return signed(s.getAppId(), s.getNonceStr(), s.getTimestamp(), s.getSignature());
  }

  static Object signed(String appId, String nonce, long timestamp, String signature) {
    return Map.of("appId", appId, "nonceStr", nonce, "timestamp", timestamp, "signature", signature);
  }

  static String digest(File file) throws Exception {
    byte[] bytes = Files.readAllBytes(file.toPath());
    Files.delete(file.toPath());
    return digest(bytes);
  }

  static String digest(byte[] bytes) throws Exception {
    StringBuilder hex = new StringBuilder();
    for (byte b : MessageDigest.getInstance("SHA-256").digest(bytes)) {
      hex.append(String.format("%02x", b));
    }
    return hex.toString();
  }

  public static void main(String[] args) throws Exception {
    Map<String, Command> commands;
    switch (System.getenv("WXTOKEN_KIND")) {
      case "oa": commands = official(); break;
      case "mini": commands = mini(); break;
      case "open": commands = open(); break;
      case "suite": commands = suite(); break;
      default: commands = work();
    }
    commands.put("ping", arg -> "pong");

    Gson gson = new GsonBuilder().disableHtmlEscaping().create();
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = in.readLine()) != null; ) {
      String[] command = gson.fromJson(line, String[].class);
      Map<String, Object> answer = new HashMap<>();
      try {
        answer.put("result", commands.get(command[0]).run(command.length > 1 ? command[1] : ""));
      } catch (Throwable e) {
        answer.put("error", command[0] + ": " + e);
      }
      out.println(gson.toJson(answer));
    }
  }
}
