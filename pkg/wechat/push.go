package wechat

import (
	"errors"
	"slices"
	"strconv"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// What a push of a platform or a suite is about [T component_verify_ticket, authorize_event; W 90628,
// 90642, 97175]. There are others; they mean nothing for credentials.
const (
	PushTicket       = "component_verify_ticket"
	PushAuthorized   = "authorized"
	PushUpdated      = "updateauthorized"
	PushUnauthorized = "unauthorized"

	PushSuiteTicket   = "suite_ticket"
	PushCreateAuth    = "create_auth"
	PushChangeAuth    = "change_auth"
	PushCancelAuth    = "cancel_auth"
	PushPermanentCode = "reset_permanent_code"
)

// Push is an event that WeChat pushes to a third-party platform, or WeCom to a suite.
type Push struct {
	// InfoType says what it is about: one of the constants above, or another one.
	InfoType string
	// Platform is the platform's appid or the suite's id.
	Platform string
	// Order is when WeChat says that it happened, in Unix seconds by WeChat's clock: CreateTime or
	// TimeStamp. Two pushes can have the same, and pushes come late, twice and in any order.
	Order int64
	// Ticket is what tickets bring: valid for 12 h for a platform, for 30 min for a suite.
	Ticket secret.String
	// Authorizer is the appid or the corpid that the event is about. create_auth and
	// reset_permanent_code name none.
	Authorizer string
	// Code is to be exchanged once for the authorisation.
	Code secret.String
}

// ErrPush says that the text of a push is not the XML that one has. It holds nothing of it.
var ErrPush = errors.New("wechat: the push is not the XML of an event (-40011)")

// ParsePush reads the text of a push: [Opened.Message]. An unknown InfoType is no error.
func ParsePush(message []byte) (Push, error) {
	f, err := parseFlat(message)
	if err != nil || f["InfoType"] == "" {
		return Push{}, ErrPush
	}
	either := func(a, b string) string {
		if f[a] != "" {
			return f[a]
		}
		return f[b]
	}
	order, err := strconv.ParseInt(either("CreateTime", "TimeStamp"), 10, 64)
	if err != nil || order < 0 {
		return Push{}, ErrPush
	}
	return Push{
		InfoType: f["InfoType"], Platform: either("AppId", "SuiteId"), Order: order,
		Ticket:     secret.New(either("ComponentVerifyTicket", "SuiteTicket")),
		Authorizer: either("AuthorizerAppid", "AuthCorpId"),
		Code:       secret.New(either("AuthorizationCode", "AuthCode")),
	}, nil
}

// releaseTests are the accounts with which WeChat tries a platform out before it is released to all:
// they authorise and withdraw within seconds, by machine [T releases_instructions].
var releaseTests = [...]string{
	"wx570bc396a51b8ff8", "wx9252c5e0bb1836fc", "wx8e1097c5bc82cde9", "wx14550af28c71a144", "wxa35b9c23cfe664eb",
	"wxd101a85aa106f53e", "wxc39235c15087f6f3", "wx7720d01d4b2a4500", "wx05d483572dcd5d8b", "wx5910277cae6fd970",
}

// IsReleaseTest reports whether an authorizer is an account of WeChat's own test of platforms, so
// that what it does concerns no customer.
func IsReleaseTest(authorizer string) bool { return slices.Contains(releaseTests[:], authorizer) }
