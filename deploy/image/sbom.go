package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

var notInSPDXID = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// spdx lists what the program was built from, which is components[0] and the rest linked into it.
func spdx(src source, arch string, program []byte, components []component) ([]byte, error) {
	digest := hexSHA256(program)
	doc := v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      fmt.Sprintf("wxtoken-%s-linux-%s", src.version, arch),
		DocumentNamespace: fmt.Sprintf("https://github.com/wxtoken/sidecar/spdx/%s/linux-%s/%s", src.version, arch, digest),
		CreationInfo: &v2_3.CreationInfo{
			Created:        src.created.Format(time.RFC3339),
			Creators:       []common.Creator{{CreatorType: "Tool", Creator: "github.com/wxtoken/sidecar/deploy/image"}, {CreatorType: "Tool", Creator: classifierModule}},
			CreatorComment: "A declared license is what " + classifierModule + " finds in the texts that the image has under /licenses.",
		},
	}
	for i, c := range components {
		p := &v2_3.Package{
			PackageSPDXIdentifier: common.ElementID(notInSPDXID.ReplaceAllString(c.name, "-")), PackageName: c.name, PackageVersion: c.version,
			PackageDownloadLocation: noAssertion, PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: c.license, PackageCopyrightText: noAssertion,
			PrimaryPackagePurpose:     "LIBRARY",
			PackageExternalReferences: []*v2_3.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl(c)}},
		}
		relation := &v2_3.Relationship{
			RefA: common.MakeDocElementID("", "DOCUMENT"), RefB: common.MakeDocElementID("", string(p.PackageSPDXIdentifier)),
			Relationship: common.TypeRelationshipDescribe,
		}
		if i == 0 {
			p.PrimaryPackagePurpose, p.PackageFileName = "APPLICATION", "/"+programPath
			p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: digest}}
		} else {
			relation.RefA = common.MakeDocElementID("", string(doc.Packages[0].PackageSPDXIdentifier))
			relation.Relationship = common.TypeRelationshipDependsOn
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relation)
	}
	var out bytes.Buffer
	err := spdxjson.Write(doc, &out, spdxjson.Indent(" "))
	return out.Bytes(), err
}

// purl is the name by which scanners look for vulnerabilities: the standard library is stdlib, and
// its version has no "go" before it.
func purl(c component) string {
	if c.name == "std" {
		version, _, _ := strings.Cut(strings.TrimPrefix(c.version, "go"), " ")
		return "pkg:golang/stdlib@" + version
	}
	return "pkg:golang/" + c.name + "@" + c.version
}
