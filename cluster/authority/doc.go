// Package authority decides who belongs to a network: its certificate authority,
// the certificates of its nodes, and the tokens by which new ones join (DESIGN §5).
//
// The first node founds the network: an Ed25519 key and a self-signed root. The
// key is sealed to the sealing key of every voter's node, any of which signs
// ([Signer]). A certificate names network, site and node in one URI
// ([Name]); the node's id is the hash of the certificate's key, and whoever
// verifies a certificate verifies that too ([Root.Verify]). It lasts [Lifetime].
// Clocks are believed to within [Tolerance] only.
//
// The flow of a joining node:
//
//	NewToken → the operator carries the text → ParseToken
//	→ port.DialJoin pins the root by the token → Enroll ⇢ Serve → Registrar
//	→ Register.Admit (the commit) → Signer.Issue → Credentials
//
// A token's secret never travels: the joining node signs its request by a key
// derived from it, and the network keeps the public half. Renewal takes the same
// way with the node's own key as its proof, whether its certificate has expired
// or not, as long as it is a member in good standing.
//
// The package reads and writes connections and one file that it is given; it
// starts no goroutine. [Credentials] are safe for concurrent use, the rest does
// not change. What it does not do: remember members and revocations, which is the
// catalogue's part ([Register]). Bytes are in docs/formats/network.md.
package authority
