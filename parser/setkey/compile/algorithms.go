package compile

import (
	"encoding/hex"
	"strings"
	"syscall"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/parser/setkey"

	"github.com/alecthomas/participle/v2/lexer"
)

// algorithms are those of an SA, with their keys.
type algorithms struct {
	encrypt, auth       uint8
	encryptKey, authKey *pfkey.Key
	flags               pfkey.SAFlags
}

func (c *compiler) algorithms(a *setkey.AlgorithmSpec, old bool) (*algorithms, error) {
	result := &algorithms{}
	var err error
	switch {
	case a == nil:
		return nil, errIncomplete
	case len(a.Encryption) > 0:
		if err = c.encryption(a.Encryption, old, result); err == nil && len(a.Authentication) > 0 {
			err = authentication(a.Authentication, result)
		}
	case len(a.Alone) > 0:
		err = authentication(a.Alone, result)
	case !missing(a.Compression):
		found, _ := algorithm.CompressionByName(a.Compression.Value)
		result.encrypt = found.ID
		if a.RawCPI {
			result.flags = pfkey.SAFlagRawCPI
		}
	default:
		err = errIncomplete
	}
	return result, err
}

func (c *compiler) encryption(words []lexer.Token, old bool, result *algorithms) error {
	name := words[0]
	if name.Value == "simple" {
		c.warn(name, name.Pos, "WARNING: obsolete algorithm", "%q is obsolete: it encrypts nothing, as does null", name.Value)
		result.encrypt = algorithm.EncryptNull
		return nil
	}
	found, known := algorithm.EncryptionByName(name.Value)
	if !known || len(words) < 2 {
		return errIncomplete
	}
	key := words[1]
	switch name.Value {
	case "des-deriv":
		if old {
			return failAt(key, name.Pos, "algorithm mismatched", "des-deriv is not for esp-old")
		}
		result.flags = pfkey.SAFlagDeriv
	case "des-32iv":
		if !old {
			return failAt(key, name.Pos, "algorithm mismatched", "des-32iv is for esp-old only")
		}
		result.flags = pfkey.SAFlagIV4B
	}
	k, err := keyString(pfkey.ExtKeyEncrypt, key)
	if err != nil {
		return err
	}
	if err := found.CheckKey(k.Bits); err != nil {
		return fail(key, "Invalid key length", "%s", lengthReason(err))
	}
	result.encrypt, result.encryptKey = found.ID, k
	return nil
}

func authentication(words []lexer.Token, result *algorithms) error {
	name := words[0]
	if name.Value == "null" {
		result.auth = algorithm.AuthNull
		return nil
	}
	found, known := algorithm.AuthenticationByName(name.Value)
	if !known || len(words) < 2 {
		return errIncomplete
	}
	key := words[1]
	k, err := keyString(pfkey.ExtKeyAuth, key)
	if err != nil {
		return err
	}
	if err := found.CheckKey(k.Bits); err != nil {
		message := "Invalid key length"
		if found.ID == algorithm.AuthTCPMD5 {
			message = "" // FreeBSD's setkey gives no reason
		}
		return fail(key, message, "%s", lengthReason(err))
	}
	result.auth, result.authKey = found.ID, k
	return nil
}

// lengthReason is why a key's length is wrong, without the errno that a database
// would answer with.
func lengthReason(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+syscall.EINVAL.Error())
}

// keyString reads a key. An odd number of hexadecimal digits gives a first
// byte of one digit.
func keyString(kind pfkey.ExtType, t lexer.Token) (*pfkey.Key, error) {
	var key []byte
	if t.Value[0] == '"' {
		key = []byte(t.Value[1 : len(t.Value)-1])
	} else {
		digits := t.Value[2:]
		if len(digits)%2 != 0 {
			digits = "0" + digits
		}
		var err error
		if key, err = hex.DecodeString(digits); err != nil {
			return nil, fail(t, "Invalid argument", "the key is not hexadecimal")
		}
	}
	return &pfkey.Key{Kind: kind, Bits: 8 * len(key), Key: key}, nil
}
