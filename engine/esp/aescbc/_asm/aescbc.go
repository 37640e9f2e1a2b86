// Aescbc writes the assembly of package aescbc.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	lanes     = 8
	blockSize = 16
	laneSize  = 8 + blockSize // of struct lane
)

func main() {
	ConstraintExpr("amd64")
	encrypt()
	decrypt()
	subWord()
	invMixColumns()
	Generate()
}

// rounds emits the rounds of AES on states that are independent of one another, so
// that the processor works on all of them at once.
func rounds(name string, keys, n GPVirtual, states []VecVirtual, round, last func(Op, Op)) {
	key := XMM()
	each := func(i int, f func(Op, Op)) {
		MOVUPS(Mem{Base: keys, Disp: i * blockSize}, key)
		for _, s := range states {
			f(key, s)
		}
	}
	each(0, func(k, s Op) { PXOR(k, s) })
	for i := 1; i < 10; i++ {
		each(i, round)
	}
	CMPQ(n, Imm(10))
	JE(LabelRef(name + "10"))
	each(10, round)
	each(11, round)
	CMPQ(n, Imm(12))
	JE(LabelRef(name + "12"))
	each(12, round)
	each(13, round)
	each(14, last)
	JMP(LabelRef(name + "Done"))
	Label(name + "12")
	each(12, last)
	JMP(LabelRef(name + "Done"))
	Label(name + "10")
	each(10, last)
	Label(name + "Done")
}

func aesenc(k, s Op)     { AESENC(k, s) }
func aesenclast(k, s Op) { AESENCLAST(k, s) }
func aesdec(k, s Op)     { AESDEC(k, s) }
func aesdeclast(k, s Op) { AESDECLAST(k, s) }

func encrypt() {
	TEXT("encryptLanes", NOSPLIT, "func(keys *byte, rounds int, lanes *byte, blocks int)")
	Doc("encryptLanes encrypts some blocks, at least one, of each of eight lanes.")
	Pragma("noescape")
	keys := Load(Param("keys"), GP64()).(GPVirtual)
	n := Load(Param("rounds"), GP64()).(GPVirtual)
	all := Load(Param("lanes"), GP64()).(GPVirtual)
	left := Load(Param("blocks"), GP64()).(GPVirtual)
	at := GP64()
	XORQ(at, at)
	var data []GPVirtual
	var chain []VecVirtual
	for i := range lanes {
		data, chain = append(data, GP64()), append(chain, XMM())
		MOVQ(Mem{Base: all, Disp: i * laneSize}, data[i])
		MOVUPS(Mem{Base: all, Disp: i*laneSize + 8}, chain[i])
	}
	Label("block")
	for i := range lanes {
		text := XMM()
		MOVUPS(Mem{Base: data[i], Index: at, Scale: 1}, text)
		PXOR(text, chain[i])
	}
	rounds("enc", keys, n, chain, aesenc, aesenclast)
	for i := range lanes {
		MOVUPS(chain[i], Mem{Base: data[i], Index: at, Scale: 1})
	}
	ADDQ(Imm(blockSize), at)
	DECQ(left)
	JNZ(LabelRef("block"))
	for i := range lanes {
		MOVUPS(chain[i], Mem{Base: all, Disp: i*laneSize + 8})
	}
	RET()
}

func decrypt() {
	TEXT("decryptBlocks", NOSPLIT, "func(keys *byte, rounds int, iv *byte, text *byte, blocks int)")
	Doc("decryptBlocks decrypts the blocks of one message in place.")
	Pragma("noescape")
	keys := Load(Param("keys"), GP64()).(GPVirtual)
	n := Load(Param("rounds"), GP64()).(GPVirtual)
	iv := Load(Param("iv"), GP64()).(GPVirtual)
	text := Load(Param("text"), GP64()).(GPVirtual)
	left := Load(Param("blocks"), GP64()).(GPVirtual)
	before := XMM() // the ciphertext of the block before
	MOVUPS(Mem{Base: iv}, before)
	for _, step := range []int{lanes, 1} {
		name := fmt.Sprintf("dec%d", step)
		Label(name)
		CMPQ(left, Imm(uint64(step)))
		JLT(LabelRef(name + "End"))
		var states []VecVirtual
		for i := range step {
			states = append(states, XMM())
			MOVUPS(Mem{Base: text, Disp: i * blockSize}, states[i])
		}
		rounds(name, keys, n, states, aesdec, aesdeclast)
		for i := range step {
			cipher := XMM()
			MOVUPS(Mem{Base: text, Disp: i * blockSize}, cipher)
			PXOR(before, states[i])
			MOVUPS(states[i], Mem{Base: text, Disp: i * blockSize})
			MOVAPS(cipher, before)
		}
		ADDQ(Imm(uint64(step*blockSize)), text)
		SUBQ(Imm(uint64(step)), left)
		JMP(LabelRef(name))
		Label(name + "End")
	}
	RET()
}

func subWord() {
	TEXT("subWord", NOSPLIT, "func(w uint32) uint32")
	Doc("subWord is SubWord of FIPS 197, in a time that tells nothing of the word.")
	w := Load(Param("w"), GP32())
	x := XMM()
	MOVD(w, x)
	PSHUFD(Imm(0), x, x)
	AESKEYGENASSIST(Imm(0), x, x)
	MOVD(x, w)
	Store(w, ReturnIndex(0))
	RET()
}

func invMixColumns() {
	TEXT("invMixColumns", NOSPLIT, "func(block *byte)")
	Doc("invMixColumns is InvMixColumns of FIPS 197, in place.")
	Pragma("noescape")
	block := Mem{Base: Load(Param("block"), GP64())}
	x := XMM()
	MOVUPS(block, x)
	AESIMC(x, x)
	MOVUPS(x, block)
	RET()
}
