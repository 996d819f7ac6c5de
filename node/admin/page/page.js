// The operators' page: asks /api/status every two seconds and shows it. Whatever
// comes from the status is put into text nodes and attributes, never into markup.
'use strict';

const PERIOD = 2000;   // milliseconds between questions
const PATIENCE = 8000; // milliseconds that an answer may take
const FALLS_BACK = 10; // seconds of staleness or lag that are worth a word

const $ = id => document.getElementById(id);

// make returns an element with properties (className, scope, …), attributes under
// "attributes", and children: elements or text.
function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key !== 'attributes') element[key] = value;
    else for (const [a, v] of Object.entries(value)) element.setAttribute(a, v);
  }
  element.append(...children.filter(c => c !== null && c !== undefined && c !== ''));
  return element;
}

// text changes an element's text only if it is another, so that screen readers
// and selections are left alone.
function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

// same replaces what an element holds only if it would look otherwise.
function same(element, children) {
  const next = make('div', {}, ...children);
  if (element.innerHTML !== next.innerHTML) element.replaceChildren(...next.childNodes);
}

function bytes(n) {
  let unit = 'B';
  for (const u of ['kB', 'MB', 'GB', 'TB', 'PB']) {
    if (Math.abs(n) < 1000) break;
    n /= 1000;
    unit = u;
  }
  return (unit === 'B' || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + ' ' + unit;
}

function duration(seconds) {
  if (seconds < 0) return 'not known';
  if (seconds < .01) return (seconds * 1000).toFixed(1).replace('.0', '') + ' ms';
  if (seconds < 1) return Math.round(seconds * 1000) + ' ms';
  if (seconds < 10) return seconds.toFixed(1) + ' s';
  seconds = Math.round(seconds);
  if (seconds < 120) return seconds + ' s';
  if (seconds < 7200) return Math.floor(seconds / 60) + ' min';
  if (seconds < 172800) return Math.floor(seconds / 3600) + ' h';
  return Math.floor(seconds / 86400) + ' days';
}

const count = n => Number(n).toLocaleString('en');
const plural = (n, one, many) => count(n) + ' ' + (n === 1 ? one : many || one + 's');
const short = id => id.length > 12 ? id.slice(0, 8) + '…' : id;
const when = at => at ? new Date(at).toLocaleString() : '';

const STATES = {alive: 'good', partial: 'warn', silent: 'bad', drained: 'plain', removed: 'plain',
  running: 'good', waiting: 'plain', done: 'plain', backoff: 'bad', failed: 'bad', stopping: 'warn'};
const pill = state => make('span', {className: 'pill ' + (STATES[state] || 'plain')}, state);

// cell is a data cell that knows its column's name, for narrow screens.
function cell(label, className, ...children) {
  return make('td', {className, attributes: {'data-label': label}}, make('span', {className: 'stack'}, ...children));
}

const more = (...children) => make('div', {className: 'more'}, ...children);

// nodesById finds a node's site for those who only know its id.
function nodesById(s) {
  const all = new Map();
  for (const site of s.sites) for (const n of site.nodes) all.set(n.id, site.name);
  return all;
}

const ownNode = s => s.sites.flatMap(site => site.nodes).find(n => n.self);

// attention lists what somebody should look at: [severity, text].
function attention(s) {
  const list = [];
  for (const site of s.sites) {
    const silent = site.nodes.filter(n => n.state === 'silent').length;
    if (site.state === 'silent') list.push(['bad', `Site ${site.name} is not heard.`]);
    else if (silent > 0) list.push(['warn', `${plural(silent, 'node')} of site ${site.name} not heard.`]);
    if (site.lacking_bytes > 0) list.push(['warn', `Site ${site.name} lacks ${bytes(site.lacking_bytes)} of the shards that it owes.`]);
  }
  const shortages = s.layout.shortages || [];
  if (shortages.length > 0) list.push(['warn', `If site ${shortages[0].site} is lost, ${bytes(shortages[0].bytes)} of its shards have no place` + (shortages.length > 1 ? `; nor has everything of ${plural(shortages.length - 1, 'other site')}, each lost alone.` : '.')]);
  if (!s.leader) list.push(['bad', 'No leader is known: what is stored here is found here, but not at other sites; deleting and changing the registry wait.']);
  if (s.staleness_seconds < 0) list.push(['warn', 'Since the start of this node no leader has confirmed that the catalogue is complete.']);
  else if (s.staleness_seconds > FALLS_BACK) list.push(['warn', `The catalogue here is confirmed as of ${duration(s.staleness_seconds)} ago.`]);
  if (s.repair.queued + s.repair.running > 0) list.push(['warn', `${plural(s.repair.queued + s.repair.running, 'repair')} to do.`]);
  if (s.damaged_key_ranges > 0) list.push(['bad', `${plural(s.damaged_key_ranges, 'range')} of the study keys lost in both files: see pelago verify.`]);
  if (s.mended_key_ranges > 0) list.push(['warn', `${plural(s.mended_key_ranges, 'rotten range')} of the study keys made up for by their copy: look at the disk.`]);
  if (s.epochs_lacking > 0) list.push(['warn', `${plural(s.epochs_lacking, 'epoch key')} of the network not here yet${s.packing_waits ? ': what is stored is not packed' : ''}.`]);
  else if (s.packing_waits) list.push(['bad', 'This node has no epoch key: what is stored is not packed.']);
  if (s.rejected_facts > 0) list.push(['bad', `The catalogue has refused ${plural(s.rejected_facts, 'fact')} of this node.`]);
  if (s.quarantined > 0) list.push(['warn', `${plural(s.quarantined, 'instance')} in quarantine: see pelago conflicts.`]);
  if (s.refuses && !ownNode(s)?.witness) list.push(['warn', `Images are refused: ${s.refuses}.`]);
  for (const t of s.tasks) {
    if (t.state === 'backoff' || t.state === 'failed') list.push(['bad', `Task ${t.name}: ${t.error || t.state}`]);
  }
  return list;
}

function showHead(s) {
  document.title = `${s.site} – Pelago`;
  text($('site'), s.site);
  const leaderSite = nodesById(s).get(s.leader);
  text($('node'), short(s.node));
  $('node').title = s.node;
  const self = ownNode(s);
  text($('role'), self ? role(self) : '…');
  text($('network'), s.network);
  text($('leader'), !s.leader ? 'none known' : s.leader === s.node ? 'this node' : leaderSite || short(s.leader));
  $('leader').title = s.leader;
  text($('version'), s.version);
  text($('uptime'), duration(s.uptime_seconds));
}

function showHealth(list) {
  const worst = list.some(([level]) => level === 'bad') ? 'bad' : list.length > 0 ? 'warn' : 'good';
  $('health').className = 'notice ' + worst;
  text($('health'), list.length === 0 ? 'All is well.' : `${plural(list.length, 'thing')} to look at.`);
  $('attention').hidden = list.length === 0;
  same($('attention-list'), list.map(([level, what]) => make('li', {className: level}, what)));
}

function showCards(s) {
  const nodes = s.sites.flatMap(site => site.nodes).filter(n => n.state !== 'removed');
  const heard = nodes.filter(n => n.state !== 'silent').length;
  const behind = s.commit_index - s.applied_index;
  const cards = [
    ['Nodes heard', `${heard} of ${nodes.length}`, plural(s.sites.filter(site => site.state !== 'removed').length, 'site') + ', ' + plural(nodes.filter(n => n.voter).length, 'voter'), heard < nodes.length ? 'bad' : ''],
    ['Staleness', duration(s.staleness_seconds), behind > 0 ? plural(behind, 'entry', 'entries') + ' to apply' : 'entry ' + count(s.applied_index),
      s.staleness_seconds < 0 || s.staleness_seconds > FALLS_BACK ? 'warn' : ''],
    ['Journal', count(s.pending_journal), 'facts that others do not know yet'],
    ['Studies', count(s.studies), `${count(s.series)} series`],
    ['Instances', count(s.instances), `${plural(s.patients, 'patient')}`],
    ['Protected', count(s.protected_studies), `studies; ${s.survives_sites > 0 ? plural(s.survives_sites, 'site') : 'no site'} may be lost`],
    ['Copies here', bytes(s.hot_bytes), `of our own, ${bytes(s.cached_bytes)} of others`],
    ['Staging', bytes(s.staging_bytes), `not packed yet; ${bytes(s.free_bytes)} free`],
    ['Commitments', count(s.pending_commitment), 'asked for and not yet answered'],
    ['Repair', count(s.repair.queued), repairLine(s.repair).replace(/^\S+ /, '')],
  ];
  same($('cards'), cards.map(([name, figure, what, level]) => make('div', {},
    make('dt', {}, name), make('dd', {className: 'figure ' + (level || '')}, figure), make('dd', {className: 'more'}, what))));
}

function role(n) {
  if (n.state === 'removed') return '–';
  const words = [];
  if (n.leader) words.push('leader');
  else if (n.voter) words.push('voter');
  if (n.witness) words.push('witness');
  if (n.signs) words.push('lets others join');
  if (n.barred) words.push('never votes');
  return words.join(', ') || 'follows';
}

function lag(n) {
  if (n.lag_entries < 0) return ['not known'];
  if (n.lag_entries === 0) return n.self ? ['0', more('confirmed ' + duration(n.lag_seconds) + ' ago')] : ['0'];
  return [plural(n.lag_entries, 'entry', 'entries'), more(duration(n.lag_seconds))];
}

function disk(n) {
  if (!n.capacity_bytes) return ['not known'];
  const used = n.used_bytes / n.capacity_bytes;
  const words = `${bytes(n.used_bytes)} of ${bytes(n.capacity_bytes)}`;
  return [make('meter', {min: 0, max: 1, low: .8, high: .93, optimum: 0, value: used, attributes: {'aria-label': words}}, words), more(words)];
}

// shards is what a site holds of the network's shards, and what it owes.
function shards(site) {
  if (site.state === 'removed' || site.owed_bytes === 0 && site.held_bytes === 0) return null;
  const known = n => n < 0 ? 'not known' : bytes(n);
  return more(`shards: ${known(site.held_bytes)} held, ${known(site.owed_bytes)} owed` + (site.lacking_bytes > 0 ? `, ${bytes(site.lacking_bytes)} lacking` : '') + (site.room_bytes > 0 ? `; room to keep: ${bytes(site.room_bytes)}` : ''));
}

function showSites(s) {
  text($('sites-count'), count(s.sites.length));
  const rows = [];
  for (const site of s.sites) {
    site.nodes.forEach((n, i) => rows.push(make('tr', {className: i > 0 ? 'same' : ''},
      make('th', {scope: 'row'}, site.name, i === 0 && s.layout_version > 0 ? shards(site) : null),
      cell('Node', 'id', make('span', {title: n.id}, short(n.id)), n.self ? ' (this one)' : '', more(n.address)),
      cell('State', '', pill(n.state)),
      cell('Role', '', role(n)),
      cell('Lag', 'number', ...lag(n)),
      cell('Round trip', 'number', n.self ? '–' : n.round_trip_seconds > 0 ? duration(n.round_trip_seconds) : 'not known'),
      cell('Disk used', '', ...disk(n)))));
  }
  same($('sites').tBodies[0], rows);
}

function showTransfers(s) {
  const sites = nodesById(s);
  $('transfers').hidden = s.transfers.length === 0;
  $('transfers-none').hidden = s.transfers.length > 0;
  text($('transfers-count'), s.transfers.length > 0 ? count(s.transfers.length) : '');
  same($('transfers').tBodies[0], s.transfers.map(t => make('tr', {},
    make('th', {scope: 'row'}, `${t.kind} ${t.incoming ? 'coming in' : 'going out'}`),
    cell('With', '', sites.get(t.node) || short(t.node)),
    cell('Moved', 'number', bytes(t.bytes)),
    cell('Rate', 'number', t.seconds > 0 ? bytes(t.bytes / t.seconds) + '/s' : '–'),
    cell('For', 'number', duration(t.seconds)),
    cell('Calls', 'number', count(t.calls)))));
}

function repairLine(r) {
  let line = `${count(r.queued)} queued, ${count(r.running)} running`;
  if (r.queued + r.running > 0) {
    line += `, ${bytes(r.bytes_per_second || 0)}/s`;
    if (r.left_seconds >= 0) line += `, ${duration(r.left_seconds)} left`;
  }
  if (r.lost > 0) line += `; of ${count(r.lost)} nobody has enough shards`;
  if (r.full) line += '; there is no room here';
  return line;
}

function showTasks(s) {
  text($('repair'), `Repair: ${repairLine(s.repair)}.`);
  text($('tasks-count'), count(s.tasks.length));
  same($('tasks').tBodies[0], s.tasks.map(t => make('tr', {},
    make('th', {scope: 'row'}, t.name),
    cell('State', '', pill(t.state), t.total > 0 ? more(`${count(t.done || 0)} of ${count(t.total)}`) : ''),
    cell('Restarts', 'number', count(t.restarts || 0)),
    cell('Last round', '', when(t.last_run) || '–'),
    cell('Latest failure', '', t.error || 'none', t.error_at ? more(when(t.error_at)) : ''))));
}

function show(s) {
  showHead(s);
  showHealth(attention(s));
  showCards(s);
  showSites(s);
  showTransfers(s);
  showTasks(s);
}

let answered = null; // when the node answered last

// lost says that the node does not answer, and how old what is shown is.
function lost(why) {
  document.body.classList.add('old');
  $('health').className = 'notice bad';
  text($('health'), `The node does not answer (${why}).` + (answered ? ` What is shown is of ${answered.toLocaleTimeString()}.` : ''));
}

async function ask() {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), PATIENCE);
  try {
    const answer = await fetch('/api/status', {signal: limit.signal, cache: 'no-store', headers: {Accept: 'application/json'}});
    if (!answer.ok) throw new Error(answer.status === 401 || answer.status === 403 ? 'a login is needed' : 'status ' + answer.status);
    const s = await answer.json();
    answered = new Date();
    document.body.classList.remove('old');
    show(s);
    text($('asked'), `As of ${answered.toLocaleTimeString()}, asked every ${PERIOD / 1000} s.`);
  } catch (e) {
    lost(limit.signal.aborted ? 'no answer in time' : e instanceof TypeError ? 'not reached' : e.message);
  } finally {
    clearTimeout(timer);
  }
}

// A page that nobody sees asks nothing.
async function watch() {
  for (;;) {
    if (!document.hidden) await ask();
    await new Promise(resolve => {
      const timer = setTimeout(resolve, PERIOD);
      if (document.hidden) document.addEventListener('visibilitychange', () => { clearTimeout(timer); resolve(); }, {once: true});
    });
  }
}

watch();
