package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The parts of SPDX 2.3 that are used. https://spdx.github.io/spdx-spec/v2.3/
type (
	spdxDocument struct {
		SPDXVersion   string             `json:"spdxVersion"`
		DataLicense   string             `json:"dataLicense"`
		SPDXID        string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		CreationInfo  spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		SPDXID           string         `json:"SPDXID"`
		Name             string         `json:"name"`
		VersionInfo      string         `json:"versionInfo"`
		PackageFileName  string         `json:"packageFileName,omitempty"`
		DownloadLocation string         `json:"downloadLocation"`
		FilesAnalyzed    bool           `json:"filesAnalyzed"`
		Checksums        []spdxChecksum `json:"checksums,omitempty"`
		LicenseConcluded string         `json:"licenseConcluded"`
		LicenseDeclared  string         `json:"licenseDeclared"`
		CopyrightText    string         `json:"copyrightText"`
		Purpose          string         `json:"primaryPackagePurpose"`
		ExternalRefs     []spdxRef      `json:"externalRefs"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

var notInSPDXID = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// spdx lists what the program was built from, which is components[0] and the rest linked into it.
func spdx(src source, arch string, program []byte, components []component) ([]byte, error) {
	const nobody = "NOASSERTION"
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	doc := spdxDocument{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT",
		Name:      fmt.Sprintf("wxtoken-%s-linux-%s", src.version, arch),
		Namespace: fmt.Sprintf("https://github.com/wxtoken/sidecar/spdx/%s/linux-%s/%s", src.version, arch, digest),
		CreationInfo: spdxCreation{
			Created:  src.created.Format(time.RFC3339),
			Creators: []string{"Tool: github.com/wxtoken/sidecar/deploy/image"},
		},
	}
	for i, c := range components {
		p := spdxPackage{
			SPDXID: "SPDXRef-" + notInSPDXID.ReplaceAllString(c.name, "-"), Name: c.name, VersionInfo: c.version,
			DownloadLocation: nobody, LicenseConcluded: nobody, LicenseDeclared: c.license, CopyrightText: nobody,
			Purpose: "LIBRARY", ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", purl(c)}},
		}
		relation := spdxRelationship{"SPDXRef-DOCUMENT", "DESCRIBES", p.SPDXID}
		if i == 0 {
			p.Purpose, p.PackageFileName = "APPLICATION", "/"+programPath
			p.Checksums = []spdxChecksum{{"SHA256", digest}}
		} else {
			relation = spdxRelationship{doc.Packages[0].SPDXID, "DEPENDS_ON", p.SPDXID}
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relation)
	}
	return json.MarshalIndent(doc, "", " ")
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
