// Shows what the broker sends. Names of pipes come from anybody: they are put in
// place as text, never as HTML.
'use strict';

const get = (id) => document.getElementById(id);

function make(tag, className, ...inside) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...inside);
  return e;
}

function set(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

function svg(tag, attributes) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}

// draw shows a graph in a box: what went out as an area, what came in as a line.
function draw(box, graph) {
  let picture = box.firstChild;
  if (!graph) {
    if (picture) picture.remove();
    return;
  }
  if (!picture) {
    picture = svg('svg', { preserveAspectRatio: 'none', role: 'img' });
    picture.append(svg('title', {}), svg('path', { class: 'out' }), svg('path', { class: 'in', 'vector-effect': 'non-scaling-stroke' }));
    box.append(picture);
  }
  const [title, area, line] = picture.children;
  const last = graph.in.length - 1;
  const path = (points) => points.map((y, x) => x + ' ' + (100 - y)).join(' L');
  picture.setAttribute('viewBox', `0 -4 ${last} 108`);
  set(title, 'the last minute, peak ' + graph.peak);
  area.setAttribute('d', `M0 100 L${path(graph.out)} L${last} 100 Z`);
  line.setAttribute('d', 'M' + path(graph.in));
}

const rows = new Map(); // by name

function newRow() {
  const r = {
    name: make('bdi'), wait: make('span', 'wait'), ends: make('td', 'ends'), queued: make('td', 'number queued'),
    in: make('td', 'number in'), out: make('td', 'number out'), graph: make('td', 'graph'),
  };
  r.row = make('tr', '', make('td', 'name', r.name, r.wait), r.ends, r.queued, r.in, r.out, r.graph);
  return r;
}

function showPipes(pipes) {
  const body = get('rows');
  const gone = new Set(rows.keys());
  pipes.forEach((p, i) => {
    let r = rows.get(p.name);
    if (!r) rows.set(p.name, r = newRow());
    gone.delete(p.name);
    set(r.name, p.name);
    r.name.title = p.name;
    set(r.wait, p.wait);
    r.wait.classList.toggle('stuck', p.stuck);
    set(r.ends, p.ends);
    set(r.queued, p.queued);
    set(r.in, p.in);
    set(r.out, p.out);
    draw(r.graph, p.graph);
    if (body.children[i] !== r.row) body.insertBefore(r.row, body.children[i] || null);
  });
  for (const name of gone) rows.delete(name);
  while (body.children.length > pipes.length) body.lastElementChild.remove(); // also the server's rows
  get('none').hidden = pipes.length > 0;
}

function showEvents(events) {
  get('events').replaceChildren(...events.map((e) => make('li', e.kind,
    make('time', '', e.at), ' ', make('b', '', e.kind), ' ', make('bdi', '', e.name), ' ', make('span', '', e.text))));
}

let lastEvents = '';

function show(view) {
  setState(view.state, view.state);
  set(get('about'), view.about);
  get('facts').replaceChildren(...view.facts.map((f) =>
    make('div', f.bad ? 'bad' : '', make('dt', '', f.what), make('dd', '', f.value))));
  draw(get('total'), view.total);
  set(get('peak'), view.total.peak);
  showPipes(view.pipes);
  set(get('more'), view.more);
  const events = JSON.stringify(view.events);
  if (events !== lastEvents) showEvents(view.events);
  lastEvents = events;
}

function setState(kind, text) {
  const e = get('state');
  e.className = kind;
  set(e, text);
}

let source = null;
let retry = 0;
let lastNews = performance.now();
let every = 1000; // milliseconds between two messages
let broken = false; // there is no connection, and the page says so

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  lastNews = performance.now();
  broken = false;
  source = new EventSource('events');
  source.onmessage = (message) => {
    lastNews = performance.now();
    broken = false;
    document.body.classList.remove('old');
    const view = JSON.parse(message.data);
    every = view.every;
    show(view);
  };
  source.onerror = () => {
    broken = true;
    document.body.classList.add('old');
    setState('lost', 'no connection');
    // The browser tries again by itself, but not after a refusal.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(connect, 5000);
  };
}

// A broker that hangs sends nothing, and what it sent last looks as if all were well.
setInterval(() => {
  const silent = performance.now() - lastNews;
  if (document.hidden || broken || silent < 2 * every) return;
  document.body.classList.add('old');
  setState('lost', `no news for ${Math.floor(silent / 1000)} s`);
}, 500);

// A page that nobody sees needs no news.
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) return connect();
  clearTimeout(retry);
  source.close();
});

// From now on the cookie does; the token stays neither in the address nor in the history.
if (location.search) history.replaceState(null, '', location.pathname);
connect();
