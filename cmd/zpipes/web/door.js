// Sends text into a pipe or queue, and reads from it. What is read comes from anybody: it
// is shown as text.
'use strict';

const mostShown = 65536; // characters

const escaped = () => encodeURIComponent(get('name').value).replaceAll("'", '%27');

// at is where the pipe or queue is. A browser takes these two names for directories, however they are written.
function at() {
  if (/^\.\.?$/.test(escaped())) throw new Error('no browser can ask for this name; curl can, as below');
  return get('kind').value + '/' + escaped();
}

// doing has one request of a kind at a time, which its button stops.
function doing(button, stop, output, act) {
  get(button).onclick = async () => {
    const aborter = new AbortController();
    get(button).disabled = true;
    get(stop).hidden = false;
    get(stop).onclick = () => aborter.abort();
    const say = (text) => set(get(output), text);
    try {
      await act(aborter.signal, say);
    } catch (e) {
      say(aborter.signal.aborted ? 'stopped' : e.message);
    }
    get(button).disabled = false;
    get(stop).hidden = true;
  };
}

async function refused(answer) {
  return new Error((await answer.text()).trim() || answer.statusText);
}

doing('send', 'unsend', 'sent', async (signal, say) => {
  const queue = get('kind').value === 'queues';
  say(queue ? 'waiting for room' : 'waiting for a reader');
  const answer = await fetch(at(), { method: 'POST', body: get('text').value, signal });
  if (!answer.ok) throw await refused(answer);
  say(queue ? 'the queue has it' : 'a reader is there, and the broker has all');
});

doing('read', 'unread', 'had', async (signal, say) => {
  const queue = get('kind').value === 'queues';
  set(get('got'), '');
  say(queue ? 'waiting for a chunk' : 'waiting for a writer');
  const answer = await fetch(at() + (queue ? '?wait=1h' : ''), { signal });
  if (!answer.ok) throw await refused(answer);
  const body = answer.body.getReader();
  const decoder = new TextDecoder();
  let bytes = 0;
  for (;;) {
    let part;
    try {
      part = await body.read();
    } catch (e) {
      if (signal.aborted) throw e;
      throw new Error(`${bytes} bytes, and this is not all: the writer did not finish`);
    }
    if (part.done) break;
    bytes += part.value.length;
    const room = mostShown - get('got').textContent.length;
    const text = decoder.decode(part.value, { stream: true });
    if (room > 0) get('got').append(text.slice(0, room));
    say(`${bytes} bytes so far`);
  }
  say(`${bytes} bytes, and this was all` + (bytes > mostShown ? '; the first of them are shown' : ''));
});

// jobs asks for something about the jobs of the queue.
async function jobs(method, query) {
  const answer = await fetch(at().replace('queues/', 'jobs/') + query, { method });
  if (!answer.ok) throw await refused(answer);
  return answer.json();
}

async function look() {
  const all = await jobs('GET', '');
  get('peeked').replaceChildren(...all.map((j) => make('li', j.state,
    make('b', '', j.state), ' ', make('bdi', '', j.data), ' ', make('span', '', j.about), ' ', make('code', '', j.id))));
  return all.length;
}

function tending(button, act) {
  get(button).onclick = async () => {
    try {
      set(get('tended'), await act());
    } catch (e) {
      set(get('tended'), e.message);
    }
  };
}

tending('peek', async () => (await look()) ? '' : 'there are none');

for (const [button, query] of [['redrive', () => '?do=redrive'], ['purge', () => '?do=purge&state=' + get('those').value]]) {
  tending(button, async () => {
    if (button === 'purge' && !confirm(`Drop all jobs of ${get('name').value} that are ${get('those').value}?`)) return '';
    const n = await jobs('POST', query());
    await look();
    return n === 1 ? '1 job' : `${n} jobs`;
  });
}

function showCurl() {
  get('jobs').hidden = get('kind').value !== 'queues';
  const curl = get('door').dataset.curl;
  const name = escaped().replace(/^\.\.?$/, (dots) => dots.replaceAll('.', '%2E'));
  const url = `'${new URL(get('kind').value + '/', location.href)}${name}'`;
  set(get('sends'), `${curl} -f ${get('kind').value === 'queues' ? '--data-binary @' : '-T '}FILE ${url}`);
  set(get('reads'), `${curl} -f ${url}`);
}

get('kind').onchange = showCurl;
get('name').oninput = showCurl;
showCurl();
