package main

import (
	"fmt"
	"html"
	"strings"
)

// A bar is a value with a name and, written beside the bar, its text.
type bar struct {
	name  string
	value float64
	text  string
}

// A panel is a few bars that share a scale of their own.
type panel struct {
	title string
	bars  []bar
}

// In the pictures' own units, pixels where they are shown in full size.
const (
	panelWidth = 400
	nameWidth  = 118
	barWidth   = 190 // the longest
	barHeight  = 16
	barPitch   = 22
	panelHead  = 26
	panelGap   = 20
	pictureTop = 40
)

// drawn for light and dark pages alike.
const style = `<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.head { font-weight: 600 }
.name { text-anchor: end }
.own { fill: #0969da } .peer { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .own { fill: #4493f8 } .peer { fill: #545d68 }
}
</style>
`

// draw draws panels, two side by side. Bars whose name begins with own stand out.
func draw(title, own string, panels []panel) string {
	var b strings.Builder
	y, height := pictureTop, 0
	for i, p := range panels {
		if i%2 == 0 {
			y, height = y+height, 0
		}
		p.draw(&b, i%2*(panelWidth+panelGap), y, own)
		height = max(height, panelHead+len(p.bars)*barPitch+panelGap)
	}
	width := 2*panelWidth + panelGap
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n"+
		"<title>%s</title>\n%s<text class=\"title\" x=\"0\" y=\"20\">%s</text>\n%s</svg>\n",
		width, y+height, width, y+height, html.EscapeString(title), style, html.EscapeString(title), b.String())
}

func (p panel) draw(b *strings.Builder, x, y int, own string) {
	most := 0.
	for _, bar := range p.bars {
		most = max(most, bar.value)
	}
	fmt.Fprintf(b, `<text class="head" x="%d" y="%d">%s</text>`+"\n", x+nameWidth, y+13, html.EscapeString(p.title))
	for i, bar := range p.bars {
		class, top, length := "peer", y+panelHead+i*barPitch, 1.
		if strings.HasPrefix(bar.name, own) {
			class = "own"
		}
		if most > 0 {
			length = max(length, barWidth*bar.value/most)
		}
		fmt.Fprintf(b, `<text class="name" x="%d" y="%d">%s</text>`, x+nameWidth-8, top+12, html.EscapeString(bar.name))
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, class, x+nameWidth, top, length, barHeight)
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", float64(x+nameWidth)+length+6, top+12, html.EscapeString(bar.text))
	}
}

// streamChart draws a figure of streams, a panel for each size.
func streamChart(all []*results, title string, w work, f figure) string {
	var panels []panel
	for _, r := range all {
		if r.work != w {
			continue
		}
		p := panel{title: "writes of " + sizeText(float64(r.size))}
		for _, c := range r.contenders {
			median := f.over(r.rounds[c.name]).median
			p.bars = append(p.bars, bar{c.name, median, f.text(median)})
		}
		panels = append(panels, p)
	}
	return draw(title, "zpipes", panels)
}
