// Package setkey is the language of setkey(8): it turns a script into
// statements, one at a time, because that is how they take effect. What a
// statement means is the business of package compile.
package setkey

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

// Reader reads the statements of a script.
type Reader struct {
	scanner *scanner
	tokens  []Token // of the statement that was read last
	source  string  // that they are in
	parser  tokenParser
}

// NewReader returns a Reader of a script. The filename is for positions.
func NewReader(filename string, script io.Reader) *Reader {
	return &Reader{scanner: newScanner(filename, script)}
}

// Next returns the next statement, or io.EOF when there is none.
//
// A statement that is not of the language comes with a [*Error], and with as
// much of it as was understood: what is wrong with that is reported first. The
// statements after it can be read nevertheless.
func (r *Reader) Next() (*Statement, error) {
	for len(r.tokens) > 0 && r.End().Kind == kindInvalid {
		// The rest of its statement says nothing.
		r.tokens, _ = r.scanner.statement(r.tokens[:0])
	}
	r.tokens, r.source = r.scanner.statement(r.tokens[:0])
	if err := r.scanner.err(); err != nil {
		return nil, fmt.Errorf("%s: %w", r.scanner.pos.Filename, err)
	}
	if len(r.tokens) == 1 && r.tokens[0].Kind == lexer.EOF {
		return nil, io.EOF
	}
	s, err := r.parser.parse(r.tokens)
	var unexpected *participle.UnexpectedTokenError
	if errors.As(err, &unexpected) {
		return s, r.syntaxError(unexpected.Unexpected.Pos)
	}
	return s, err
}

// End returns the last token that was read of the statement.
func (r *Reader) End() Token { return r.tokens[len(r.tokens)-1] }

// Token returns the token of the last statement at a position.
func (r *Reader) Token(pos lexer.Position) Token { return r.tokens[r.index(pos)] }

func (r *Reader) index(pos lexer.Position) int {
	for i, t := range r.tokens {
		if t.Pos.Offset == pos.Offset {
			return i
		}
	}
	return len(r.tokens) - 1
}

var grammar = participle.MustBuild[Statement](
	participle.Lexer(definition{symbols}),
	participle.UseLookahead(0),
)

// definition tells participle the kinds of tokens. Scripts are cut into tokens
// by the scanner, whose rules depend on what came before.
type definition struct{ symbols map[string]lexer.TokenType }

func (d definition) Symbols() map[string]lexer.TokenType { return d.symbols }

func (definition) Lex(filename string, script io.Reader) (lexer.Lexer, error) {
	return nil, errors.New("setkey scripts are read with a Reader")
}

// tokenParser parses statements that were cut into tokens. It has one lexer for
// all of them and fills in their tokens: making one takes participle longer
// than parsing with it.
type tokenParser struct {
	lexer *lexer.PeekingLexer
	slots []lexer.Token // the lexer's
}

func (p *tokenParser) parse(tokens []Token) (*Statement, error) {
	if err := p.load(tokens); err != nil {
		return nil, err
	}
	return grammar.ParseFromLexer(p.lexer)
}

func (p *tokenParser) load(tokens []Token) error {
	need := len(tokens) + 1 // with the end
	if need > len(p.slots) {
		size := max(2*need, 64)
		made, err := lexer.Upgrade(&blanks{left: size - 1})
		if err != nil {
			return err
		}
		p.lexer, p.slots = made, made.Range(0, lexer.RawCursor(size))
	}
	p.lexer.LoadCheckpoint(lexer.Checkpoint{})
	for i, t := range tokens {
		p.slots[i] = lexer.Token{Type: t.Kind, Value: t.Text, Pos: t.Pos}
	}
	p.slots[need-1] = lexer.EOFToken(tokens[len(tokens)-1].Pos)
	return nil
}

// blanks is a lexer of tokens that are to be filled in.
type blanks struct{ left int }

func (l *blanks) Next() (lexer.Token, error) {
	if l.left == 0 {
		return lexer.EOFToken(lexer.Position{}), nil
	}
	l.left--
	return lexer.Token{Type: kindInvalid}, nil
}
